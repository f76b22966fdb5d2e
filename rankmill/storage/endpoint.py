"""Refuse a cloud's metadata service as an S3 endpoint; it would hand out credentials."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from rankmill.errors import StorageRefused

NO_URL = "the S3 endpoint is not a URL; set AWS_ENDPOINT_URL_S3 to one like http://host:9000"

_METADATA = [
    ipaddress.ip_network(network)
    for network in (
        "169.254.0.0/16",  # link-local: AWS, Azure, Google, OpenStack
        "fe80::/10",
        "fd00:ec2::/32",  # AWS over IPv6
        "100.100.100.200/32",  # Alibaba
        "192.0.0.192/32",  # Oracle
    )
]
_METADATA_NAMES = {"metadata", "metadata.google.internal", "instance-data"}


def check_endpoint(url: str) -> None:
    """Refuse a metadata address in any spelling; other names are not resolved.

    Raises:
        StorageRefused: the URL is wrong or its host is a metadata service. The message names only
            the host, because the URL may hold a password.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port  # urlsplit itself does not check it
    except ValueError as error:
        raise StorageRefused(NO_URL) from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise StorageRefused(NO_URL)
    host = parts.hostname.rstrip(".")
    address = _address(host)
    if host in _METADATA_NAMES or (address and any(address in network for network in _METADATA)):
        raise StorageRefused(
            f"{host} is the address of a cloud's metadata service, not of an S3 store; "
            "correct AWS_ENDPOINT_URL_S3"
        )


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that a host is written as; None for a name."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:  # resolvers also accept 2852039166, 0xa9fea9fe and 169.254.43518
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address
