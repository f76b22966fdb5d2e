"""Files on disk: written next to their place, synced, then moved or linked into it."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_IMODE, S_ISDIR, S_ISREG
from typing import BinaryIO

from rankmill.errors import InputError, InputMissing, StorageRefused, StorageUnavailable
from rankmill.storage.allowed import check_path
from rankmill.storage.glob import may_lead_to
from rankmill.storage.protocol import (
    TEMPORARY_SUFFIX,
    FileStat,
    Published,
    Store,
    Write,
    check_whole,
)

_Identity = tuple[int, int]

# Links to folders that a walk follows; links between folders make endless paths, as in /sys.
_MAX_LINKS = 10_000
_REFUSED = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EACCES: "access is denied",
    errno.EPERM: "access is denied",
    errno.EROFS: "the file system is read-only",
    errno.EFBIG: "the file is too large",
    errno.ENOTDIR: "a part of the path is a file",
    errno.EISDIR: "it is a folder",
    errno.ENAMETOOLONG: "the name is too long",
}


class LocalStore(Store):
    """The store of paths and `file://` places."""

    def absolute(self, uri: str) -> str:
        """Return the absolute, normalized path; links are not followed."""
        return os.path.normpath(_path(uri).absolute())

    def resolved(self, uri: str) -> str:
        """Return the real path."""
        return os.path.realpath(_path(uri))

    def publish(self, uri: str, write: Write, *, replace: bool) -> Published | None:
        """Write and sync a temporary file, then move it into place, or link it if not `replace`."""
        target = _path(uri)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}{TEMPORARY_SUFFIX}")
        with _errors(f"cannot write {uri}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                published = _write_synced(temporary, write)
                if replace:
                    temporary.replace(target)
                else:
                    os.link(temporary, target)
            except FileExistsError:
                return None
            finally:
                temporary.unlink(missing_ok=True)
            _sync_folder(target.parent)
        return published

    def read_bytes(self, uri: str) -> bytes | None:
        """Return the content; None if there is no file."""
        with _errors(f"cannot read {uri}"):
            try:
                with _open(_path(uri), uri) as file:
                    check_whole(uri, os.fstat(file.fileno()).st_size)
                    return file.read()
            except FileNotFoundError:
                return None

    def open(self, file: FileStat) -> BinaryIO:
        """Open the file; it must have the size and modification time of `file`.

        Raises:
            InputMissing: there is none.
            InputError: it has changed.
        """
        found = self.stat(file.uri)
        if found is None:
            raise InputMissing(
                f"{file.uri} changed or was removed after the job was planned; does every worker "
                "see its folder?"
            )
        if found != file:
            raise InputError(f"{file.uri} changed or was removed after the job was planned")
        with _errors(f"cannot read {file.uri}"):
            return _open(_path(file.uri), file.uri)

    def stat(self, uri: str) -> FileStat | None:
        """Return size and modification time; None if there is no file."""
        with _errors(f"cannot read {uri}"):
            path = _path(uri)
            return _stat(path, uri) if path.is_file() else None

    def names(self, uri: str, start: str = "") -> list[str]:
        """Return the sorted names in a folder, links and subfolders too."""
        with _errors(f"cannot list {uri}"):
            try:
                return sorted(name for name in os.listdir(_path(uri)) if name.startswith(start))
            except (FileNotFoundError, NotADirectoryError):
                return []

    def walk(self, uri: str, pattern: str = "") -> Iterator[FileStat]:
        """Return the files below a folder; links are followed, but not back to a folder above.

        Raises:
            InputError: there are so many links to folders that the paths may have no end.
        """
        top = _path(uri)
        n_letters = len(str(top).rstrip("/"))
        waiting: list[tuple[Path, frozenset[_Identity]]] = [(top, frozenset())]
        n_links = 0
        with _errors(f"cannot list {uri}"):
            while waiting:
                folder, above = waiting.pop()
                here = _identity(folder)
                if here is None or here in above:  # gone, or a link led back to a folder above
                    continue
                for path in folder.iterdir():
                    if not may_lead_to(str(path)[n_letters:], pattern):
                        continue
                    if path.is_symlink():
                        _path(str(path))
                        n_links += path.is_dir()
                        if n_links > _MAX_LINKS:
                            raise InputError(
                                f"{uri}: more than {_MAX_LINKS} links to folders lie below it; "
                                "name a folder with fewer"
                            )
                    if path.is_dir():
                        waiting.append((path, above | {here}))
                    elif path.is_file():  # neither a broken link nor a socket
                        yield _stat(path, str(path))

    def make_shared(self, uri: str) -> None:
        """Make the folder and its parents; it gets the mode of its parent."""
        path = _path(uri)
        with _errors(f"cannot make the folder {uri}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                path.mkdir()
            except FileExistsError:
                return
            with suppress(OSError):  # some file systems have no permissions
                path.chmod(S_IMODE(path.parent.stat().st_mode))

    def remove_file(self, uri: str) -> None:
        """Remove the file if there is one; of a link, the link."""
        with _errors(f"cannot remove {uri}"):
            _path(uri).unlink(missing_ok=True)

    def remove(self, uri: str) -> None:
        """Remove the file, or the folder with all that is in it."""
        path = _path(uri)
        with _errors(f"cannot remove {uri}"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def remove_empty_folder(self, uri: str) -> None:
        """Remove the folder; one that holds anything stays, without an error."""
        with suppress(OSError):
            _path(uri).rmdir()

    def remove_unfinished(self, uri: str) -> None:
        """Remove the temporary files below the folder."""
        for folder, _, names in os.walk(_path(uri)):
            for name in names:
                if name.endswith(TEMPORARY_SUFFIX):
                    self.remove(str(Path(folder, name)))


def _path(uri: str) -> Path:
    """Return the path of a place, if RANKMILL_ALLOWED_PREFIXES allows it with links followed."""
    path = uri
    start = re.match(r"file://([^/]*)", uri, re.IGNORECASE)
    if start is not None:
        path = uri[start.end() :]
        if start[1].lower() not in ("", "localhost") or not path:
            raise InputError(f"{uri}: a file:// place has no host; write file:///folder/file")
    if path.partition("/")[0] == "~":
        path = os.path.expanduser(path)
    check_path(path, uri)
    return Path(path)


def _open(path: Path, uri: str) -> BinaryIO:
    """Open a file; refuse a pipe, a socket or a device, which could block the process for ever."""
    mode = path.stat().st_mode
    if not (S_ISREG(mode) or S_ISDIR(mode)):
        raise InputError(f"{uri} is a pipe, a socket or a device, not a file")
    return open(path, "rb", opener=_without_waiting)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _stat(path: Path, uri: str) -> FileStat:
    status = path.stat()
    return FileStat(uri, status.st_size, str(status.st_mtime_ns))


def _identity(folder: Path) -> _Identity | None:
    """Return the device and inode of a folder, equal for all its names; None if there is none."""
    try:
        status = folder.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _write_synced(path: Path, write: Write) -> Published:
    with path.open("w+b") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return Published(file.seek(0, os.SEEK_END), sha256)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _errors(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = _REFUSED.get(error.errno or 0)
        if reason:
            raise StorageRefused(f"{what}: {reason}") from error
        raise StorageUnavailable(f"{what}: {error.strerror or error}") from error
