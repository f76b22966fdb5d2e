"""Compare and complete the names of places, without reading what is there."""

from __future__ import annotations

import os
from pathlib import Path

from rankmill.storage.protocol import TEMPORARY_SUFFIX
from rankmill.storage.stores import scheme_of, store_of


def absolute(uri: str) -> str:
    """Return the place's name for a process in any working folder."""
    return store_of(uri).absolute(uri)


def from_folder(folder: Path, uri: str) -> str:
    """Return the place that a file in `folder` names: a relative path is below the folder."""
    return uri if "://" in uri else str(folder / os.path.expanduser(uri))


def resolved(uri: str) -> str:
    """Return the absolute place with every link followed."""
    return store_of(uri).resolved(uri)


def child(uri: str, *names: str) -> str:
    """Return the place of these names, one below the other, in the folder `uri`."""
    return "/".join((uri.rstrip("/"), *names))


def is_local(uri: str) -> bool:
    """Return whether the place is on a disk rather than in an object store."""
    return scheme_of(uri) in ("", "file")


def is_temporary(name: str) -> bool:
    """Return whether a file of this name is unfinished: being written, or left by a dead writer."""
    return name.endswith(TEMPORARY_SUFFIX)


def lies_in(uri: str, folder: str) -> bool:
    """Return whether a place is the folder or anywhere in it; links are followed."""
    inner, outer = resolved(uri), resolved(folder)
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")


def link_target(uri: str) -> str | None:
    """Return the place that a link on disk leads to; None if `uri` is not a link."""
    return resolved(uri) if is_local(uri) and os.path.islink(absolute(uri)) else None


def connection_options(uri: str) -> dict[str, str] | None:
    """Return how another library connects to the place; None on disk.

    The keys are the names of AWS's environment variables.

    Raises:
        StorageRefused: no credentials are found, or the environment makes no client.
    """
    if is_local(uri):
        return None
    from rankmill.storage.s3_client import connection_options  # boto3 is slow to load

    return connection_options()
