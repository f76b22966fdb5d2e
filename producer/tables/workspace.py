"""A workspace for work out of core: a scratch folder, its database and a progress callback."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import numpy as np
import pyarrow as pa

from producer.tables.database import Database
from rankmill.errors import StorageRefused, is_memory_shortage, unexpected

Progress = Callable[[str, int], None]

_BETWEEN_PROGRESS_S = 1.0


@dataclass(frozen=True)
class Workspace:
    """A scratch folder with a database in it.

    Attributes:
        folder: the scratch folder.
        database: the database in it.
        progress: is called with a step's name and its number of rows so far.
    """

    folder: Path
    database: Database
    progress: Progress

    def array(self, name: str, kind: type[np.generic] | np.dtype, size: int) -> np.ndarray:
        """Return `size` zeros on disk, for one number a row: they may not fit into memory."""
        if size == 0:  # an empty file cannot be mapped
            return np.zeros(0, kind)
        path = self.folder / name
        with path.open("wb") as file:  # without disk space, a write to a page kills the process
            os.posix_fallocate(file.fileno(), 0, size * np.dtype(kind).itemsize)
        return np.memmap(path, kind, "r+", shape=(size,))

    def watch(self, step: str, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Yield the tables and report their rows as progress, every second and at the end."""
        n_rows, reported_at = 0, monotonic()
        for table in tables:
            yield table
            n_rows += table.num_rows
            if monotonic() - reported_at >= _BETWEEN_PROGRESS_S:
                self.progress(step, n_rows)
                reported_at = monotonic()
        self.progress(step, n_rows)

    def with_storage_errors(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Yield the tables and name the scratch folder in the error if it cannot be written.

        Raises:
            StorageRefused: the scratch folder cannot be written.
        """
        try:
            yield from tables
        except OSError as error:
            if is_memory_shortage(error):
                raise unexpected(error) from error
            reason = error.strerror or error
            raise StorageRefused(f"cannot prepare the input in {self.folder}: {reason}") from error
