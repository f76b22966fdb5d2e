"""Refuse every place outside of RANKMILL_ALLOWED_PREFIXES.

The stores check here whenever they turn a name into a path or a key, so no caller can forget it.
"""

from __future__ import annotations

import os
from urllib.parse import unquote

from rankmill.errors import InputError, NotAllowed
from rankmill.settings import settings
from rankmill.shown import clipped

# Enough to recognize a name; a message may carry megabytes.
_SHOWN = 200
# Linux's limit. Nested folders are made by recursion, which Python limits to 1,000 calls.
_MAX_PATH_BYTES = 4095
_MAX_FOLDERS = 500


def check_path(path: str | os.PathLike[str], name: str) -> None:
    """Check a path on disk.

    Args:
        path: the path; links are followed.
        name: the place as it was given, for the error.

    Raises:
        NotAllowed: the path leads out of the allowed folders.
        InputError: no file can have that name.
    """
    try:
        encoded = os.fsencode(path)
        is_short = len(encoded) <= _MAX_PATH_BYTES and encoded.count(b"/") <= _MAX_FOLDERS
        is_possible = is_short and b"\0" not in encoded
    except UnicodeEncodeError:
        is_possible = False
    if not is_possible:
        raise InputError(f"{clipped(name, _SHOWN)!r} is not a file name")
    prefixes = settings().allowed_prefixes
    if prefixes is not None:
        folders = [os.path.realpath(prefix) for prefix in prefixes if prefix.startswith("/")]
        if not any(is_under(os.path.realpath(path), folder) for folder in folders):
            raise _refusal(name, prefixes)


def check_key(bucket: str, key: str, name: str) -> None:
    """Check an object or a folder of objects.

    Args:
        bucket: the bucket.
        key: the object's key, or the beginning of keys.
        name: the place as it was given, for the error.

    Raises:
        NotAllowed: the key does not begin with an allowed prefix of its bucket. A key with `.` or
            `..` is refused too, because a server or a proxy may resolve it.
    """
    prefixes = settings().allowed_prefixes
    if prefixes is None:
        return
    segments = unquote(key).replace("\\", "/").split("/")
    place = f"s3://{bucket}/{key}"
    is_plain = "." not in segments and ".." not in segments
    if not is_plain or not any(is_under(place, prefix.rstrip("/")) for prefix in prefixes):
        raise _refusal(name, prefixes)


def check_hub_place(place: str, name: str) -> None:
    """Check a data set of the hub, or a file in it.

    Args:
        place: the absolute place.
        name: the place as it was given, for the error.

    Raises:
        NotAllowed: it does not begin with an allowed prefix, or has `.` or `..` in it.
    """
    prefixes = settings().allowed_prefixes
    segments = unquote(place).replace("\\", "/").split("/")
    is_plain = "." not in segments and ".." not in segments
    if not is_plain and prefixes is None:
        raise InputError(f"{clipped(name, _SHOWN)}: leave out `.` and `..`")
    if prefixes is not None and not (is_plain and any(is_under(place, one) for one in prefixes)):
        raise _refusal(name, prefixes)


def is_under(place: str, folder: str) -> bool:
    """Return whether a place is the folder or in it; both are absolute and resolved."""
    return place.rstrip("/") == folder.rstrip("/") or place.startswith(folder.rstrip("/") + "/")


def _refusal(name: str, prefixes: tuple[str, ...]) -> NotAllowed:
    shown = clipped(name, _SHOWN)
    return NotAllowed(
        f"{shown} lies outside of what RANKMILL_ALLOWED_PREFIXES allows: {', '.join(prefixes)}"
    )
