"""Check the broker's URL, and split one that names sentinels into its parts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

_FORMS = (
    "redis://HOST:PORT/0, rediss://HOST:PORT/0, redis+socket:///PATH, or "
    "sentinel://HOST:26379;sentinel://HOST:26379"
)
NO_CLUSTER = (
    "Redis Cluster is not supported: a message moves between keys in one transaction, and a "
    "cluster keeps these on different servers; use one primary, or sentinels with sentinel://"
)
_SENTINEL = "sentinel://"
_SENTINEL_PORT = 26379


@dataclass(frozen=True)
class Sentinels:
    """The parts of a sentinel:// URL; login and database are those of the primary."""

    addresses: tuple[tuple[str, int], ...]
    username: str | None
    password: str | None
    database: int


def checked_url(url: str) -> str:
    """Check a broker's URL and return it; each sentinel in it gets the login and the database.

    Raises:
        ValueError: it is not one of the forms above. The message does not quote the URL.
    """
    scheme = url.partition("://")[0].lower()
    if "cluster" in scheme:
        raise ValueError(NO_CLUSTER)
    if scheme.startswith("valkey"):
        raise ValueError(f"must begin with redis:// for Valkey too: {_FORMS}")
    if url.startswith(_SENTINEL):
        return _checked_sentinels(url)
    # A client's own message would repeat a password that it takes for a port.
    if not re.match(r"(rediss?|redis\+socket)://.", url):
        raise ValueError(f"must be {_FORMS}")
    _split(url)
    return url


def is_sentinel(url: str) -> bool:
    """Return whether a checked URL names sentinels."""
    return url.startswith(_SENTINEL)


def sentinels(url: str) -> Sentinels:
    """Return the parts of a checked sentinel:// URL."""
    parts = [urlsplit(each) for each in url.split(";")]
    first = parts[0]
    return Sentinels(
        addresses=tuple((str(each.hostname), each.port or _SENTINEL_PORT) for each in parts),
        username=unquote(first.username) if first.username else None,
        password=unquote(first.password) if first.password else None,
        database=int(first.path.strip("/") or 0),
    )


def passwords(url: str) -> list[str]:
    """Return the passwords in a checked URL."""
    found = [urlsplit(each).password for each in url.split(";")]
    return sorted({password for password in found if password})


def _checked_sentinels(url: str) -> str:
    parts = []
    for each in filter(None, url.split(";")):
        if not each.startswith(_SENTINEL):
            raise ValueError("must have sentinel:// before each of its addresses, with ; between")
        parts.append(_split(each))
    logins = {part.netloc.rpartition("@")[0] for part in parts} - {""}
    databases = {part.path.strip("/") for part in parts} - {""}
    if not all(part.hostname for part in parts):
        raise ValueError("names a sentinel without a host")
    if len(logins) > 1 or len(databases) > 1:
        raise ValueError("must have one login and one database, which are those of the primary")
    if any(part.query or part.fragment for part in parts):
        raise ValueError(
            "takes no ?options; use RANKMILL_BROKER_MASTER and the settings next to it"
        )
    database = databases.pop() if databases else "0"
    if not database.isdecimal():
        raise ValueError("must end in the number of a database, such as /0")
    login = f"{logins.pop()}@" if logins else ""
    hosts = (part.netloc.rpartition("@")[2] for part in parts)
    return ";".join(f"{_SENTINEL}{login}{host}/{database}" for host in hosts)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        message = (
            "cannot be read; a port is a number up to 65535, and special characters of the "
            "password are written as %XX"
        )
        raise ValueError(message) from None
    if any(name.startswith("ssl_") for name in parse_qs(parts.query, keep_blank_values=True)):
        raise ValueError("takes no ssl_ options: certificates are checked, see RANKMILL_BROKER_CA")
    return parts
