"""The methods of every store; a missing place is not an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, BinaryIO, Protocol

from rankmill.errors import InputError

# The end of the name of a local file that is being written.
TEMPORARY_SUFFIX = ".rankmill-tmp"

# The folder of jobs' own files; folders and globs skip it, so that they are never input.
CONTROL_FOLDER = "_rankmill"

# Files that are read whole are control files. The largest, a plan, has a million shards.
MAX_WHOLE_BYTES = 2**28

# Fills an empty file that is open for reading and writing.
Write = Callable[[IO[bytes]], None]


@dataclass(frozen=True)
class Published:
    """The size and checksum of a published file."""

    n_bytes: int
    sha256: str


@dataclass(frozen=True)
class FileStat:
    """A file at one moment.

    Attributes:
        state: differs if the content differs: modification time on disk, ETag on S3.
    """

    uri: str
    size_bytes: int
    state: str


class Store(Protocol):
    """The files of one scheme. Each method raises StorageRefused or StorageUnavailable."""

    def absolute(self, uri: str) -> str:
        """Return the place's name for a process in any folder, without a `/` at the end."""

    def resolved(self, uri: str) -> str:
        """Return the absolute place with links followed, equal for all names of a place."""

    def publish(self, uri: str, write: Write, *, replace: bool) -> Published | None:
        """Write a file, whole or not at all.

        Return None, and change nothing, if `replace` is false and the file is there.
        """

    def read_bytes(self, uri: str) -> bytes | None:
        """Return a file's content; None if there is no file.

        Raises:
            InputError: it is larger than MAX_WHOLE_BYTES, or a pipe, a socket or a device.
        """

    def open(self, file: FileStat) -> BinaryIO:
        """Open a file for reading at any position.

        Raises:
            InputError: the file has changed since `file` was read.
        """

    def stat(self, uri: str) -> FileStat | None:
        """Return a file's size and state; None if there is no file."""

    def names(self, uri: str, start: str = "") -> list[str]:
        """Return the sorted names directly in a folder that begin with `start`."""

    def walk(self, uri: str, pattern: str = "") -> Iterator[FileStat]:
        """Return the files below a folder at any depth.

        A store may leave out files that neither match the pattern nor lie in a folder that does.
        The pattern is matched with the path in the folder, from its `/` on.
        """

    def make_shared(self, uri: str) -> None:
        """Make a folder with the permissions of its parent, if the store has folders."""

    def remove_file(self, uri: str) -> None:
        """Remove a file if there is one."""

    def remove(self, uri: str) -> None:
        """Remove a file, or a folder with all that is in it, if there is one."""

    def remove_empty_folder(self, uri: str) -> None:
        """Remove a folder if it is there and empty."""

    def remove_unfinished(self, uri: str) -> None:
        """Remove the unfinished files of dead writers below a folder."""


def check_whole(uri: str, size_bytes: int) -> None:
    """Check that a file is small enough to be read whole.

    Raises:
        InputError: it is not.
    """
    if size_bytes > MAX_WHOLE_BYTES:
        raise InputError(
            f"{uri} has {size_bytes:,} bytes; a control file has at most {MAX_WHOLE_BYTES:,}"
        )
