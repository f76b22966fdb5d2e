"""An S3 endpoint is never a cloud's metadata service, which would hand out credentials."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from rankmill.errors import StorageRefused

NO_URL = "the S3 endpoint is no URL; set AWS_ENDPOINT_URL_S3 to one like http://host:9000"

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
    """Refuse a metadata address in any way of writing it; other names are not resolved.

    Raises:
        StorageRefused: naming what sets the endpoint, and of the endpoint its host alone, since a
            password may stand before that.
    """
    host = _host(url)
    address = _address(host)
    if host in _METADATA_NAMES or (address and any(address in each for each in _METADATA)):
        raise StorageRefused(
            f"{host} is the address of a cloud's metadata service, not of an S3 store; "
            "set AWS_ENDPOINT_URL_S3 right"
        )


def _host(url: str) -> str:
    try:
        parts = urlsplit(url)
        _ = parts.port  # which is looked at no earlier
    except ValueError as error:
        raise StorageRefused(NO_URL) from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise StorageRefused(NO_URL)
    return parts.hostname.rstrip(".")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host is written as, or None for a name."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:  # what resolvers take too: 2852039166, 0xa9fea9fe, 169.254.43518
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address
