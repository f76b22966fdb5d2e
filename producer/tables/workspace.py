"""Where a dataset is prepared: a scratch folder with a database in it, and who hears how far."""

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
    folder: Path
    database: Database
    progress: Progress

    def array(self, name: str, kind: type[np.generic], size: int) -> np.ndarray:
        """Zeros on disk, for what is a number for each row: there may be more than fit memory."""
        if size == 0:  # which cannot be mapped
            return np.zeros(0, kind)
        path = self.folder / name
        with path.open("wb") as file:  # a page that the disk has no room for would kill the process
            os.posix_fallocate(file.fileno(), 0, size * np.dtype(kind).itemsize)
        return np.memmap(path, kind, "r+", shape=(size,))

    def watch(self, step: str, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """The tables, told of as they pass: now and then, and at last."""
        n_rows, told_at = 0, monotonic()
        for table in tables:
            yield table
            n_rows += table.num_rows
            if monotonic() - told_at >= _BETWEEN_PROGRESS_S:
                self.progress(step, n_rows)
                told_at = monotonic()
        self.progress(step, n_rows)

    def tell_errors(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """
        Raises:
            StorageRefused: the scratch folder cannot be written; a store has its own errors.
        """
        try:
            yield from tables
        except OSError as error:
            if is_memory_shortage(error):
                raise unexpected(error) from error
            reason = error.strerror or error
            raise StorageRefused(f"cannot prepare the input in {self.folder}: {reason}") from error
