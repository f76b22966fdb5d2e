"""Read, publish and remove files."""

from __future__ import annotations

import uuid
from typing import IO, BinaryIO

from rankmill.errors import InputMissing, NoConditionalPuts, StorageRefused
from rankmill.storage.naming import child
from rankmill.storage.protocol import TEMPORARY_SUFFIX, FileStat, Published, Write
from rankmill.storage.stores import store_of


def publish(uri: str, write: Write) -> Published:
    """Replace a file's content with what `write` writes.

    A reader sees the old content or all of the new, also after a power cut. An error leaves no
    trace.
    """
    published = store_of(uri).publish(uri, write, replace=True)
    assert published is not None
    return published


def write_bytes(uri: str, content: bytes) -> None:
    """Replace a file's content, as `publish` does."""
    publish(uri, _writing(content))


def write_bytes_once(uri: str, content: bytes) -> bool:
    """Write a file unless there is one, and return whether it was written.

    Of several writers at once, one wins. The disk does it by a hard link, S3 by a conditional put.
    """
    return store_of(uri).publish(uri, _writing(content), replace=False) is not None


def check_conditional_puts(folder: str) -> None:
    """Check that `write_bytes_once` works in a folder; nothing is left there.

    Raises:
        StorageRefused: the folder cannot be written to.
        NoConditionalPuts: the store ignores the condition, so that two writers would both win.
    """
    probe = child(folder, f".{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")
    # False where the answer was lost and the put was tried again.
    try:
        write_bytes_once(probe, b"")
        is_ignored = write_bytes_once(probe, b"")
        remove_file(probe)
    except StorageRefused as error:
        raise type(error)(str(error).replace(probe, folder)) from error
    if is_ignored:
        raise NoConditionalPuts(folder)


def read_bytes(uri: str) -> bytes | None:
    """Return a file's content; None if there is no file."""
    return store_of(uri).read_bytes(uri)


def open_file(file: FileStat) -> BinaryIO:
    """Open a file for reading at any position.

    Raises:
        InputError: the file has changed since `file` was read.
    """
    return store_of(file.uri).open(file)


def exists(uri: str) -> bool:
    """Return whether there is a file."""
    return store_of(uri).stat(uri) is not None


def stat(uri: str) -> FileStat:
    """Return a file's size and state.

    Raises:
        InputMissing: there is no such file.
    """
    status = store_of(uri).stat(uri)
    if status is None:
        raise InputMissing(f"{uri}: no such file")
    return status


def names(uri: str, start: str = "") -> list[str]:
    """Return the sorted names directly in a folder that begin with `start`.

    The list is empty if there is no such folder.
    """
    return store_of(uri).names(uri, start)


def make_shared(uri: str) -> None:
    """Make a folder with the permissions of its parent; an object store has no folders."""
    store_of(uri).make_shared(uri)


def remove_file(uri: str) -> None:
    """Remove a file if there is one."""
    store_of(uri).remove_file(uri)


def remove(uri: str) -> None:
    """Remove a file, or a folder with all that is in it, if there is one."""
    store_of(uri).remove(uri)


def remove_empty_folder(uri: str) -> None:
    """Remove a folder if it is there and empty."""
    store_of(uri).remove_empty_folder(uri)


def remove_unfinished(uri: str) -> None:
    """Remove the unfinished files of dead writers below a folder.

    Call it only while nobody writes there.
    """
    store_of(uri).remove_unfinished(uri)


def _writing(content: bytes) -> Write:
    def write(file: IO[bytes]) -> None:
        file.write(content)

    return write
