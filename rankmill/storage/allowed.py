"""Nothing outside of RANKMILL_ALLOWED_PREFIXES is read, written, listed or removed.

The stores ask here whenever they turn a name into a path or a key, so that nobody can forget to.
"""

from __future__ import annotations

import os
from urllib.parse import unquote

from rankmill.errors import InputError, NotAllowed
from rankmill.settings import settings
from rankmill.shown import clipped

# Enough of a name to recognize it; a message may carry megabytes.
_SHOWN = 200


def check_path(path: str | os.PathLike[str], name: str) -> None:
    """
    Raises:
        NotAllowed: with every link followed, the path leads out of the allowed folders.
        InputError: no file can have that name.
    """
    try:
        is_possible = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        is_possible = False
    if not is_possible:
        raise InputError(f"{name[:_SHOWN]!r} is no file name")
    prefixes = settings().allowed_prefixes
    if prefixes is not None:
        folders = [os.path.realpath(each) for each in prefixes if each.startswith("/")]
        if not any(is_under(os.path.realpath(path), folder) for folder in folders):
            raise _refusal(name, prefixes)


def check_key(bucket: str, key: str, name: str) -> None:
    """
    Raises:
        NotAllowed: the key does not begin with an allowed prefix of its bucket, or might be read
            as one that does not: a server or a proxy may resolve `..`.
    """
    prefixes = settings().allowed_prefixes
    if prefixes is None:
        return
    segments = unquote(key).replace("\\", "/").split("/")
    place = f"s3://{bucket}/{key}"
    is_plain = "." not in segments and ".." not in segments
    if not is_plain or not any(is_under(place, each.rstrip("/")) for each in prefixes):
        raise _refusal(name, prefixes)


def is_under(place: str, folder: str) -> bool:
    """Whether a place is a folder or in it, both absolute and without detours."""
    return place.rstrip("/") == folder.rstrip("/") or place.startswith(folder.rstrip("/") + "/")


def _refusal(name: str, prefixes: tuple[str, ...]) -> NotAllowed:
    shown = clipped(name, _SHOWN)
    return NotAllowed(
        f"{shown} lies outside of what RANKMILL_ALLOWED_PREFIXES allows: {', '.join(prefixes)}"
    )
