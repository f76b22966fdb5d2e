"""Let pyiceberg read through rankmill.storage, with its credentials and allowed prefixes."""

from __future__ import annotations

import re
from typing import Any, cast

from pyiceberg.io import FileIO, InputFile, InputStream, OutputFile

from rankmill import storage
from rankmill.errors import InputError


class StoredFiles(FileIO):
    """Read-only storage, as pyiceberg's interface for files."""

    def new_input(self, location: str) -> InputFile:
        """Return a file to read."""
        return StoredFile(location)

    def new_output(self, location: str) -> OutputFile:
        """Refuse to write."""
        raise NotImplementedError(f"{location}: tables are only read")

    def delete(self, location: Any) -> None:
        """Refuse to delete."""
        raise NotImplementedError(f"{location}: tables are only read")


class StoredFile(InputFile):
    """One file of the storage, as pyiceberg reads it."""

    def __len__(self) -> int:
        return storage.stat(normal_place(self.location)).size_bytes

    def exists(self) -> bool:
        """Return whether the file is there."""
        return storage.exists(normal_place(self.location))

    def open(self, seekable: bool = True) -> InputStream:
        """Open the file; an InputError says that the table's metadata name it."""
        place = normal_place(self.location)
        try:
            return cast(InputStream, storage.open_file(storage.stat(place)))
        except InputError as error:
            raise InputError(f"{error}, which the table's metadata name") from error


def normal_place(location: str) -> str:
    """Return a location that Hadoop has written as a place that `rankmill.storage` takes."""
    location = re.sub(r"^s3[an]://", "s3://", location)
    return re.sub(r"^file:/+", "/", location)
