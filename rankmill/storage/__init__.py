"""Bytes on storage, on disk or S3 by the same calls; what is published is whole or not there.

A place is a path, `file://` or `s3://bucket/key`. Every function raises

    StorageRefused       disk full, read-only, access denied, no such bucket
    NotAllowed           of these, outside of RANKMILL_ALLOWED_PREFIXES
    StorageUnavailable   time-out, throttling, connection lost: worth another try
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, BinaryIO

from rankmill.errors import InputError, NoConditionalPuts, StorageRefused
from rankmill.storage.glob import fixed_start, is_glob, matches
from rankmill.storage.protocol import (
    CONTROL_FOLDER,
    TEMPORARY_SUFFIX,
    FileStat,
    Published,
    Store,
    Write,
)

__all__ = ["CONTROL_FOLDER", "FileStat", "Published"]


def absolute(uri: str) -> str:
    """The same place, named so that a process in another folder finds it."""
    return _store(uri).absolute(uri)


def places(uris: str) -> list[str]:
    """The places that an input names: itself, or several with commas between them.

    Raises:
        InputError: it names none.
    """
    given = [uris] if "," not in uris or _is_one(uris) else uris.split(",")
    found = [uri.strip() for uri in given if uri.strip()]
    if not found:
        raise InputError(f"{uris!r} names no place; give a file, a folder or a glob")
    return found


def _is_one(uri: str) -> bool:
    """Whether a place with commas in it is there: a file, a folder or what a glob matches."""
    try:
        return any(True for _ in _found(uri, ("",)))
    except StorageRefused:  # together they are no place that may be looked at, one by one perhaps
        return False


def child(uri: str, *names: str) -> str:
    return "/".join((uri.rstrip("/"), *names))


def is_local(uri: str) -> bool:
    """Whether only this machine, or one that shares its disk, can reach the place."""
    return _scheme(uri) in ("", "file")


def lies_in(uri: str, folder: str) -> bool:
    """Whether a place is a folder or anywhere in it, also by way of links."""
    inner, outer = _store(uri).resolved(uri), _store(folder).resolved(folder)
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")


def resolved(uri: str) -> str:
    """The same place, absolute and with every link followed."""
    return _store(uri).resolved(uri)


def link_target(uri: str) -> str | None:
    """The place that a link on disk leads to in the end; None of all else."""
    return resolved(uri) if is_local(uri) and os.path.islink(absolute(uri)) else None


def connection_options(uri: str) -> dict[str, str] | None:
    """How another library reaches the place, by the names of AWS's variables; None on disk."""
    if is_local(uri):
        return None
    from rankmill.storage.s3 import connection_options  # boto3 is slow to load

    return connection_options()


def names_file(place: str, uri: str) -> bool:
    """Whether a file that would be written is one that a place names, also by way of links.

    In a folder that is any, also one that begins with `_`; of control files, as `find_files`.
    """
    top, pattern = _split(absolute(place))
    top = _store(place).resolved(top or "/").rstrip("/")
    path = _store(uri).resolved(uri)
    if not path.startswith(top + "/"):
        return False
    path = path.removeprefix(top)
    is_named = matches(path, pattern) or matches(path, f"{pattern}/**")
    return is_named and not _is_control(path, pattern)


def publish(uri: str, write: Write) -> Published:
    """Put what `write` writes in place of what was there.

    A reader sees the old content or all of the new, also after a power cut; an error leaves no
    trace.
    """
    published = _store(uri).publish(uri, write, replace=True)
    assert published is not None
    return published


def write_bytes(uri: str, content: bytes) -> None:
    """As `publish`."""
    publish(uri, _writing(content))


def write_bytes_once(uri: str, content: bytes) -> bool:
    """As `write_bytes`, but False and no change where something is there; one of many writers wins.

    A file on disk by linking it, an object by a conditional put.
    """
    return _store(uri).publish(uri, _writing(content), replace=False) is not None


def check_conditional_puts(folder: str) -> None:
    """Raise NoConditionalPuts where `write_bytes_once` cannot do what it says; leaves nothing."""
    probe = child(folder, f".{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")
    write_bytes_once(probe, b"")  # not won where the answer is lost and the put is tried again
    is_ignored = write_bytes_once(probe, b"")
    remove_file(probe)
    if is_ignored:
        raise NoConditionalPuts(folder)


def read_bytes(uri: str) -> bytes | None:
    """The whole content, or None where nothing is."""
    return _store(uri).read_bytes(uri)


def open_file(file: FileStat) -> BinaryIO:
    """A file for reading at any position.

    Raises:
        InputError: it is not as `file` says any more.
    """
    return _store(file.uri).open(file)


def exists(uri: str) -> bool:
    return _store(uri).stat(uri) is not None


def stat(uri: str) -> FileStat:
    """Size and state of a file.

    Raises:
        InputError: there is no such file.
    """
    found = _store(uri).stat(uri)
    if found is None:
        raise InputError(f"{uri}: no such file")
    return found


def names(uri: str, start: str = "") -> list[str]:
    """The names directly under a folder that begin with `start`, sorted.

    Empty where there is no such folder.
    """
    return _store(uri).names(uri, start)


def find_files(uri: str, suffixes: tuple[str, ...]) -> list[FileStat]:
    """The files that `uri` names: itself, those under a folder, or a glob's, in order of name.

    They are named by absolute places, so that a file has one name however it was found.

    A glob may match folders. In a folder, names that begin with `_` or `.` are skipped at every
    depth, as Spark and pyarrow do; suffixes may be in capital letters. Control files of jobs are
    found only where the place names their folder.

    Args:
        suffixes: in small letters.

    Raises:
        InputError: nothing is there.
    """
    found = look_for(uri, suffixes)
    if not found:
        raise InputError(f"{uri}: no such file, and no {' or '.join(suffixes)} file under it")
    return found


@dataclass(frozen=True)
class Listing:
    """All that was seen where a place was looked up, in order of name.

    Attributes:
        place: absolute.
        top: the folder that all of it lies in.
        named: the file that the place is, or those that a glob matches.
        inside: files of the folder that the place is, or of those that a glob matches, as
            `find_files` takes them.
        hidden: the rest, among it names that begin with `_` or `.`.
    """

    place: str
    top: str
    named: tuple[FileStat, ...] = ()
    inside: tuple[FileStat, ...] = ()
    hidden: tuple[FileStat, ...] = ()

    @property
    def is_file(self) -> bool:
        return len(self.named) == 1 and self.named[0].uri == self.place

    @property
    def is_folder(self) -> bool:
        """Whether the place is a folder, not a file or a glob."""
        return self.place == self.top


def list_place(uri: str) -> Listing:
    """See what lies in a place, by one listing; of a file, by a look at itself alone."""
    store = _store(uri)
    place = store.absolute(uri)
    itself = store.stat(place)
    if itself is not None:
        return Listing(place, place.rpartition("/")[0], named=(itself,))
    top, pattern = _split(place)
    named, inside, hidden = [], [], []
    for file in sorted(store.walk(top or "/", pattern), key=lambda file: file.uri):
        path = file.uri.removeprefix(top)
        if pattern and matches(path, pattern) and not _is_control(path, pattern):
            named.append(file)
        elif _is_found(path, pattern, ("",)):
            inside.append(file)
        else:
            hidden.append(file)
    return Listing(place, top, tuple(named), tuple(inside), tuple(hidden))


def look_for(uri: str, suffixes: tuple[str, ...]) -> list[FileStat]:
    """As `find_files`, but empty where nothing is there."""
    return sorted(_found(uri, suffixes), key=lambda file: file.uri)


def paths_below(place: str, files: Sequence[FileStat]) -> list[str]:
    """What the place that `find_files` was given leaves open of each path, from a `/` on.

    All below a folder, and what a glob matches; of a file that is named itself, nothing.
    """
    named = absolute(place)
    start = named if files[0].uri.startswith(named) else fixed_start(named)[0]
    return [file.uri.removeprefix(start) for file in files]


def make_shared(uri: str) -> None:
    """Make a folder for all who may write in the one that it lies in; an object store has none."""
    _store(uri).make_shared(uri)


def remove_empty_folder(uri: str) -> None:
    """Remove a folder if it is there and nothing is in it."""
    _store(uri).remove_empty_folder(uri)


def remove_file(uri: str) -> None:
    """Remove a file; nothing there is fine."""
    _store(uri).remove_file(uri)


def remove(uri: str) -> None:
    """Remove a file or a folder with all that is in it; nothing there is fine."""
    _store(uri).remove(uri)


def remove_unfinished(uri: str) -> None:
    """Remove what writers that were killed left in a folder; only when none is at work there."""
    _store(uri).remove_unfinished(uri)


def is_temporary(name: str) -> bool:
    """Whether a file of this name is one that a writer has not finished, or left behind."""
    return name.endswith(TEMPORARY_SUFFIX)


def _scheme(uri: str) -> str:
    match = re.match(r"([a-z][a-z0-9+.-]*):/(/?)", uri, re.IGNORECASE)
    if match and not match[2]:
        raise InputError(
            f"{uri}: write s3://bucket/key or file:///folder/file, or ./{uri} for a path that is "
            "called so"
        )
    return match[1].lower() if match else ""


def _store(uri: str) -> Store:
    return _store_of(_scheme(uri), uri)


def _store_of(scheme: str, uri: str) -> Store:
    if scheme in ("", "file"):
        return _local()
    if scheme == "s3":
        return _s3()
    raise InputError(f"{uri}: {scheme}:// is not supported; give a path, file:// or s3://")


@lru_cache(maxsize=1)
def _local() -> Store:
    from rankmill.storage.local import LocalStore

    return LocalStore()


@lru_cache(maxsize=1)
def _s3() -> Store:
    # boto3 takes a third of a second to load, which a command about local files need not wait for.
    from rankmill.storage.s3 import S3Store

    return S3Store()


def _writing(content: bytes) -> Write:
    def write(file: IO[bytes]) -> None:
        file.write(content)

    return write


def _found(uri: str, suffixes: tuple[str, ...]) -> Iterator[FileStat]:
    store = _store(uri)
    place = store.absolute(uri)
    itself = store.stat(place)
    if itself is not None:
        yield itself
        return
    top, pattern = _split(place)
    for file in store.walk(top or "/", pattern):
        if _is_found(file.uri.removeprefix(top), pattern, suffixes):
            yield file


def _split(place: str) -> tuple[str, str]:
    """A folder and the pattern of what is found in it: empty where the folder is what is named."""
    if is_glob(place) and not names(place):
        return fixed_start(place)
    return place.rstrip("/"), ""


def _is_found(path: str, pattern: str, suffixes: tuple[str, ...]) -> bool:
    """Whether a file is one that the pattern matches, or a visible one of a folder that it does."""
    if _is_control(path, pattern):
        return False
    if matches(path, pattern):
        return True
    is_visible = not any(name.startswith(("_", ".")) for name in path.split("/"))
    return is_visible and path.lower().endswith(suffixes) and matches(path, f"{pattern}/**")


def _is_control(path: str, pattern: str) -> bool:
    """Whether a path found by a pattern is a job's own file, and the pattern did not ask for it."""
    return CONTROL_FOLDER in path.split("/") and CONTROL_FOLDER not in pattern.split("/")
