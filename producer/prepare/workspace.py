"""Where a dataset is prepared: a scratch folder with a database in it, and who hears how far."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from producer.prepare.database import Database

Progress = Callable[[str, int], None]


@dataclass(frozen=True)
class Workspace:
    folder: Path
    database: Database
    progress: Progress

    def array(self, name: str, kind: type[np.generic], size: int) -> np.ndarray:
        """Zeros on disk, for what is a number for each row: there may be more than fit memory."""
        if size == 0:  # which cannot be mapped
            return np.zeros(0, kind)
        return np.memmap(self.folder / name, kind, "w+", shape=(size,))

    def watch(self, step: str, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """The tables, told of as they pass."""
        n_rows = 0
        for table in tables:
            yield table
            n_rows += table.num_rows
            self.progress(step, n_rows)
