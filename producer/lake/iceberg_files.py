"""Let pyiceberg read through our storage: its credentials, endpoint and allowed prefixes."""

from __future__ import annotations

import re
from typing import Any, cast

from pyiceberg.io import FileIO, InputFile, InputStream, OutputFile

from rankmill import storage
from rankmill.errors import InputError


class StoredFiles(FileIO):
    """Read-only storage; pyiceberg's interface also asks for what writes, which is refused."""

    def new_input(self, location: str) -> InputFile:
        return StoredFile(location)

    def new_output(self, location: str) -> OutputFile:
        raise NotImplementedError(f"{location}: tables are only read")

    def delete(self, location: Any) -> None:
        raise NotImplementedError(f"{location}: tables are only read")


class StoredFile(InputFile):
    def __len__(self) -> int:
        return storage.stat(normal_place(self.location)).size_bytes

    def exists(self) -> bool:
        return storage.exists(normal_place(self.location))

    def open(self, seekable: bool = True) -> InputStream:
        place = normal_place(self.location)
        try:
            return cast(InputStream, storage.open_file(storage.stat(place)))
        except InputError as error:
            raise InputError(f"{error}, which the table's metadata name") from error


def normal_place(location: str) -> str:
    """A location as Hadoop writes it, as our storage takes it."""
    location = re.sub(r"^s3[an]://", "s3://", location)
    return re.sub(r"^file:/+", "/", location)
