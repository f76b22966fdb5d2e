"""Recognize the metadata services of clouds, which give credentials to every caller."""

from __future__ import annotations

import ipaddress
import socket
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NETWORKS = [
    ipaddress.ip_network(network)
    for network in (
        "169.254.0.0/16",  # link-local: AWS, Azure, Google, OpenStack
        "fe80::/10",
        "fd00:ec2::/32",  # AWS over IPv6
        "fd20:ce::/32",  # Google over IPv6
        "100.100.100.200/32",  # Alibaba
        "168.63.129.16/32",  # Azure's host
        "192.0.0.192/32",  # Oracle
    )
]
# IPv6 networks whose last 32 bits are an IPv4 address: NAT64, its local form, the old "compatible".
_LAST_32_BITS = [ipaddress.ip_network(n) for n in ("64:ff9b::/96", "64:ff9b:1::/48", "::/96")]
_NAMES = ("metadata", "metadata.google.internal", "metadata.goog", "instance-data")


def is_metadata_service(host: str) -> bool:
    """Return whether a host of a URL is a metadata service, in any notation or by its name.

    A name is resolved; one that does not resolve is not a metadata service.
    """
    # As resolvers and clients read it: percent escapes, full-width digits, other dots.
    plain = unicodedata.normalize("NFKC", unquote(host)).replace("。", ".").rstrip(".").lower()
    if plain in _NAMES or plain.startswith("instance-data."):
        return True
    address = _address(plain)
    return any(map(is_metadata_address, [address] if address else _resolved(plain)))


def is_metadata_address(address: str | _Address) -> bool:
    """Return whether an address is a metadata service's, or an IPv6 form of one."""
    known = ipaddress.ip_address(address.partition("%")[0] if isinstance(address, str) else address)
    return any(form in network for form in _forms(known) for network in _NETWORKS)


def _forms(address: _Address) -> Iterator[_Address]:
    """Yield the address and the IPv4 addresses that an IPv6 address carries."""
    yield address
    if isinstance(address, ipaddress.IPv4Address):
        return
    carried = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    yield from (each for each in carried if each is not None)
    if any(address in network for network in _LAST_32_BITS):
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)


def _address(host: str) -> _Address | None:
    """Return the address that a host is written as; None for a name."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:  # resolvers also accept 2852039166, 0xa9fea9fe and 169.254.43518
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except (OSError, UnicodeError):
            return None


def _resolved(name: str) -> list[str]:
    try:
        return [str(entry[4][0]) for entry in socket.getaddrinfo(name, None)]
    except (OSError, UnicodeError):
        return []
