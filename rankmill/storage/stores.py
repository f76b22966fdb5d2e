"""Choose the store that serves a place: the disk or S3."""

from __future__ import annotations

import re
from functools import lru_cache

from rankmill.errors import InputError
from rankmill.storage.protocol import Store

_NAMES_OF_S3 = ("s3a", "s3n")


def scheme_of(uri: str) -> str:
    """Return the scheme in small letters, or an empty string for a path; Hadoop's `s3a` is `s3`.

    Raises:
        InputError: one slash follows the colon, as in `s3:/bucket`.
    """
    match = re.match(r"([a-z][a-z0-9+.-]*):/(/?)", uri, re.IGNORECASE)
    if match and not match[2]:
        raise InputError(
            f"{uri}: write s3://bucket/key or file:///folder/file; write ./{uri} for a path of "
            "this name"
        )
    scheme = match[1].lower() if match else ""
    return "s3" if scheme in _NAMES_OF_S3 else scheme


def store_of(uri: str) -> Store:
    """Return the store of a place.

    Raises:
        InputError: no store serves its scheme.
    """
    scheme = scheme_of(uri)
    if scheme in ("", "file"):
        return _local_store()
    if scheme == "s3":
        return _s3_store()
    if scheme == "hf":
        return _hub_store()
    raise InputError(f"{uri}: {scheme}:// is not supported; give a path, file://, s3:// or hf://")


def reconnect() -> None:
    """Forget the clients, so that the next call reads the environment and its files again."""
    _s3_store.cache_clear()
    _hub_store.cache_clear()


@lru_cache(maxsize=1)
def _local_store() -> Store:
    from rankmill.storage.local import LocalStore

    return LocalStore()


@lru_cache(maxsize=1)
def _s3_store() -> Store:
    # boto3 takes a third of a second to load; a command about local files need not wait for it.
    from rankmill.storage.s3 import S3Store

    return S3Store()


@lru_cache(maxsize=1)
def _hub_store() -> Store:
    from rankmill.storage.datasets_hub import HubStore

    return HubStore()
