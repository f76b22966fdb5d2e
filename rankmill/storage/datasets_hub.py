"""Read data sets of the Hugging Face hub, `hf://datasets/OWNER/NAME[@REVISION]/path`; never write.

The client's own file system lists and reads them. HF_TOKEN and HF_ENDPOINT are the client's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, BinaryIO, NoReturn, cast

from rankmill.errors import InputError, RankmillError, StorageRefused, StorageUnavailable
from rankmill.storage.allowed import check_hub_place
from rankmill.storage.protocol import FileStat, Published, Write, check_whole

_SCHEME = "hf://"
_N_PARTS = 3  # datasets, owner, name
_BLOCK_BYTES = 4 * 2**20
_REFUSED = (401, 403, 451)


class HubStore:
    """The store of `hf://` places."""

    def absolute(self, uri: str) -> str:
        """Return `hf://datasets/OWNER/NAME/path` without a `/` at the end."""
        path = uri.partition("://")[2].rstrip("/")
        parts = path.split("/")
        if parts[0] != "datasets" or len(parts) < _N_PARTS or not all(parts):
            raise InputError(f"{uri}: write hf://datasets/OWNER/NAME and perhaps a path in it")
        check_hub_place(f"{_SCHEME}{path}", uri)
        return f"{_SCHEME}{path}"

    def resolved(self, uri: str) -> str:
        """Return the absolute place; there are no links."""
        return self.absolute(uri)

    def read_bytes(self, uri: str) -> bytes | None:
        """Return a file's content; None if there is no file."""
        file = self.stat(uri)
        if file is None:
            return None
        check_whole(uri, file.size_bytes)
        with self.open(file) as content:
            return content.read()

    def open(self, file: FileStat) -> BinaryIO:
        """Open a file for reading at any position.

        Raises:
            InputError: the file has changed since `file` was read.
        """
        if self.stat(file.uri) != file:
            raise InputError(f"{file.uri} changed or was removed since the job was submitted")
        with _hub_errors(file.uri):
            return cast(BinaryIO, self._files.open(file.uri, "rb", block_size=_BLOCK_BYTES))

    def stat(self, uri: str) -> FileStat | None:
        """Return a file's size and digest; None if there is no file."""
        place = self.absolute(uri)
        with _hub_errors(uri):
            try:
                # Without expand_info, it has no digest.
                found = self._files.info(place, refresh=True, expand_info=True)
            except FileNotFoundError as error:
                if error.__cause__ is not None:  # the data set or the revision is missing
                    raise
                return None
        return _stat(found) if found["type"] == "file" else None

    def names(self, uri: str, start: str = "") -> list[str]:
        """Return the sorted names directly in a folder that begin with `start`."""
        if _is_above(uri):
            return []
        with _hub_errors(uri):
            try:
                found = self._files.ls(self.absolute(uri), detail=False, refresh=True)
            except FileNotFoundError as error:
                if error.__cause__ is not None:
                    raise
                return []
        names = (path.rpartition("/")[2] for path in found)
        return sorted(name for name in names if name.startswith(start))

    def walk(self, uri: str, pattern: str = "") -> Iterator[FileStat]:
        """Yield the files below a folder at any depth."""
        with _hub_errors(uri):
            try:
                found = self._files.find(self.absolute(uri), detail=True, refresh=True)
            except FileNotFoundError as error:
                if error.__cause__ is not None:
                    raise
                return
        yield from map(_stat, found.values())

    def publish(self, uri: str, write: Write, *, replace: bool) -> Published | None:
        """Refuse to write."""
        _refuse_to_write(uri)

    def make_shared(self, uri: str) -> None:
        """Refuse to write."""
        _refuse_to_write(uri)

    def remove_file(self, uri: str) -> None:
        """Refuse to write."""
        _refuse_to_write(uri)

    def remove(self, uri: str) -> None:
        """Refuse to write."""
        _refuse_to_write(uri)

    def remove_empty_folder(self, uri: str) -> None:
        """Refuse to write."""
        _refuse_to_write(uri)

    def remove_unfinished(self, uri: str) -> None:
        """Refuse to write."""
        _refuse_to_write(uri)

    @cached_property
    def _files(self) -> Any:
        from huggingface_hub import HfFileSystem  # an extra, and slow to load

        return HfFileSystem(skip_instance_cache=True)


def _is_above(uri: str) -> bool:
    """Return whether a place is above all data sets, where a folder's tables are looked for."""
    return len(uri.removeprefix(_SCHEME).strip("/").split("/")) < _N_PARTS


def _stat(found: dict[str, Any]) -> FileStat:
    large = found.get("lfs") or {}
    digest = large.get("sha256") or found.get("blob_id") or found.get("xet_hash") or ""
    return FileStat(f"{_SCHEME}{found['name']}", int(found["size"]), str(digest))


def _refuse_to_write(uri: str) -> NoReturn:
    raise StorageRefused(f"{uri}: hf:// is only read; give an output on disk or under s3://")


@contextmanager
def _hub_errors(uri: str) -> Iterator[None]:
    """Raise our errors for those of the hub's client; it has many kinds for a hub that is away."""
    try:
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise InputError(f"{uri}: needs the hub's client: pip install 'rankmill[hub]'") from error
    try:
        yield
    except RankmillError:
        raise
    except FileNotFoundError as error:
        raise StorageRefused(
            f"{uri}: the hub has no such data set or revision, or it needs a token (HF_TOKEN)"
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status in _REFUSED:
            why = f"{uri}: the hub refuses it ({status}); is HF_TOKEN set?"
            raise StorageRefused(why) from error
        raise StorageUnavailable(f"{uri}: the hub answers {status}") from error
    except Exception as error:
        why = f"{uri}: the hub is out of reach ({type(error).__name__}); is HF_ENDPOINT right?"
        raise StorageUnavailable(why) from error
