"""What every store can do, and what it says of a file; a place that is missing is not an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, BinaryIO, Protocol

# Ends the name of a local file that is being written.
TEMPORARY_SUFFIX = ".rankmill-tmp"

# Holds jobs' own files, which are never input: a folder or a glob that leads there skips it.
CONTROL_FOLDER = "_rankmill"

# Fills an empty file that is open for reading and writing.
Write = Callable[[IO[bytes]], None]


@dataclass(frozen=True)
class Published:
    """What `publish` has put in place."""

    n_bytes: int
    sha256: str


@dataclass(frozen=True)
class FileStat:
    """A file as it is now.

    Attributes:
        state: changes with the content: time of change on disk, ETag on S3.
    """

    uri: str
    size_bytes: int
    state: str


class Store(Protocol):
    """Files under URIs of one kind. Each method raises StorageRefused or StorageUnavailable."""

    def absolute(self, uri: str) -> str:
        """The same place, named so that any process of any machine finds it, without a `/` end."""

    def resolved(self, uri: str) -> str:
        """As `absolute`, every link followed: two names of one place become the same."""

    def publish(self, uri: str, write: Write, *, replace: bool) -> Published | None:
        """Put what `write` writes in place, whole or not at all.

        None where `replace` is false and something was there already; that stays as it was.
        """

    def read_bytes(self, uri: str) -> bytes | None: ...

    def open(self, file: FileStat) -> BinaryIO:
        """The file for reading at any position; what has changed since `file` is an InputError."""

    def stat(self, uri: str) -> FileStat | None: ...

    def names(self, uri: str, start: str = "") -> list[str]:
        """Names directly under a folder that begin with `start`, sorted."""

    def walk(self, uri: str, pattern: str = "") -> Iterator[FileStat]:
        """All files under a folder at any depth, those at least whose path in it, from its `/` on,
        matches the pattern or lies in a folder that does.
        """

    def make_shared(self, uri: str) -> None:
        """Make a folder, where folders exist, for all who may write in the one that it lies in."""

    def remove_file(self, uri: str) -> None:
        """Remove a file, if there is one."""

    def remove(self, uri: str) -> None:
        """Remove a file, or a folder with all that is in it."""

    def remove_empty_folder(self, uri: str) -> None:
        """Remove a folder, where folders exist, that holds nothing."""

    def remove_unfinished(self, uri: str) -> None:
        """Remove what killed writers left under a folder; only when none is at work there."""
