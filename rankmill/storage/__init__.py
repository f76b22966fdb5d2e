"""Bytes and Parquet on storage; whatever is published is whole or not there.

Only local files as yet. A path may be given plain or as `file://`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rankmill.errors import InputError, StorageRefused, StorageUnavailable

_TEMPORARY_SUFFIX = ".rankmill-tmp"
_REFUSED = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EACCES: "access is denied",
    errno.EPERM: "access is denied",
    errno.EROFS: "the file system is read-only",
    errno.EFBIG: "the file is too large",
    errno.ENOTDIR: "a part of the path is a file",
    errno.ENAMETOOLONG: "the name is too long",
}


@dataclass(frozen=True)
class Published:
    """What `publish` has put in place."""

    n_bytes: int
    sha256: str


@dataclass(frozen=True)
class FileStat:
    uri: str
    size_bytes: int
    modified_ns: int


def local_path(uri: str) -> Path:
    """The local path that a URI names.

    Raises:
        InputError: another scheme than `file://`.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return Path(uri)
    if scheme != "file":
        raise InputError(f"{uri}: {scheme}:// is not supported; give a path or file://")
    return Path(rest)


def absolute(uri: str) -> str:
    """The same place, named so that a process in another folder finds it."""
    return str(local_path(uri).absolute())


def child(uri: str, *names: str) -> str:
    return str(local_path(uri).joinpath(*names))


def publish(uri: str, write: Callable[[IO[bytes]], None]) -> Published:
    """Write through a temporary file beside the target, then rename over it.

    A reader sees the old content or all of the new, also after a power cut; an error leaves no
    trace.

    Raises:
        StorageRefused: disk full, read-only, access denied.
        StorageUnavailable: any other failure of the file system.
    """
    target = local_path(uri)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}{_TEMPORARY_SUFFIX}")
    with _storage_errors(f"cannot write {uri}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("w+b") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
                file.seek(0)
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                n_bytes = file.seek(0, os.SEEK_END)
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _fsync_folder(target.parent)
    return Published(n_bytes, sha256)


def write_bytes(uri: str, content: bytes) -> None:
    """Publish `content`; errors as `publish`."""

    def write(file: IO[bytes]) -> None:
        file.write(content)

    publish(uri, write)


def read_bytes(uri: str) -> bytes | None:
    """The whole content, or None where nothing is."""
    with _storage_errors(f"cannot read {uri}"):
        try:
            return local_path(uri).read_bytes()
        except FileNotFoundError:
            return None


def exists(uri: str) -> bool:
    with _storage_errors(f"cannot read {uri}"):
        return local_path(uri).exists()


def names(uri: str) -> list[str]:
    """The names directly under a folder, sorted; empty where there is no such folder."""
    with _storage_errors(f"cannot list {uri}"):
        try:
            return sorted(entry.name for entry in local_path(uri).iterdir())
        except FileNotFoundError:
            return []


def stat(uri: str) -> FileStat:
    """Size and time of a file.

    Raises:
        InputError: there is no such file.
    """
    with _storage_errors(f"cannot read {uri}"):
        try:
            status = local_path(uri).stat()
        except FileNotFoundError:
            raise InputError(f"{uri}: no such file") from None
    return FileStat(uri, status.st_size, status.st_mtime_ns)


def find_files(uri: str, suffix: str) -> list[FileStat]:
    """The files that `uri` names: itself, those under a folder, or a glob's, in order of name.

    In a folder, names that begin with `_` or `.` are skipped at every depth, as Spark, DuckDB and
    pyarrow do.

    Raises:
        InputError: nothing is there.
    """
    path = local_path(uri)
    with _storage_errors(f"cannot read {uri}"):
        if path.is_file():
            found = [path]
        elif path.is_dir():
            found = [p for p in path.rglob(f"*{suffix}") if p.is_file() and _visible(p, path)]
        else:
            root = Path(path.anchor)
            found = [p for p in root.glob(str(path.absolute().relative_to("/"))) if p.is_file()]
    if not found:
        raise InputError(f"{uri}: no such file, and no {suffix} file under it")
    return [stat(str(p)) for p in sorted(found)]


def remove(uri: str) -> None:
    """Remove a file or a folder with all that is in it; nothing there is fine."""
    path = local_path(uri)
    with _storage_errors(f"cannot remove {uri}"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def remove_temporaries(uri: str) -> None:
    """Remove what writers that were killed left in a folder; only when none is at work there."""
    for name in names(uri):
        if name.endswith(_TEMPORARY_SUFFIX):
            remove(child(uri, name))


def is_temporary(name: str) -> bool:
    return name.endswith(_TEMPORARY_SUFFIX)


def _visible(path: Path, folder: Path) -> bool:
    return not any(part.startswith(("_", ".")) for part in path.relative_to(folder).parts)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _storage_errors(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = _REFUSED.get(error.errno or 0)
        if reason:
            raise StorageRefused(f"{what}: {reason}") from error
        raise StorageUnavailable(f"{what}: {error.strerror or error}") from error
