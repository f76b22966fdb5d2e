"""Hold rows that wait for their rank: in memory while they are few, else on local disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa

from rankmill.tables.row_bytes import row_bytes

_IN_MEMORY_BYTES = 64 * 2**20


class Spill:
    """A growing table in bounded memory; its file goes when `stack` is closed."""

    def __init__(self, stack: ExitStack, scratch: str | None) -> None:
        self._stack = stack
        self._scratch = scratch
        self._tables: list[pa.Table] = []
        self._n_bytes = 0
        self._path: Path | None = None
        self._writer: pa.RecordBatchFileWriter | None = None

    def add(self, table: pa.Table) -> None:
        """Add rows; all tables have the same schema."""
        if not table.num_rows:  # its dictionaries may be large, and a file needs a batch
            return
        self._n_bytes += table.nbytes
        self._tables.append(table)
        if self._writer is None:
            if self._n_bytes <= _IN_MEMORY_BYTES:
                return
            folder = tempfile.TemporaryDirectory(prefix="rankmill-", dir=self._scratch)
            self._path = Path(self._stack.enter_context(folder), "rows.arrow")
            self._writer = pa.ipc.new_file(str(self._path), table.schema)
        waiting, self._tables = self._tables, []
        for each in waiting:
            # Slices of a window share its buffers, and each would bring all of them to the file.
            self._writer.write_table(each.combine_chunks())

    def close(self) -> Rows | None:
        """Return all rows in the order in which they were added, or None; nothing is added then."""
        if self._path is None or self._writer is None:
            return Rows([pa.concat_tables(self._tables)]) if self._tables else None
        self._writer.close()
        file = pa.ipc.open_file(self._stack.enter_context(pa.memory_map(str(self._path))))
        batches = map(file.get_batch, range(file.num_record_batches))
        return Rows([pa.Table.from_batches([batch]) for batch in batches])


class Rows:
    """Rows in pieces, which may be on disk.

    Attributes:
        sizes: int64 (n,), the bytes of each row.
    """

    def __init__(self, pieces: list[pa.Table]) -> None:
        self._pieces = pieces
        self._ends = np.cumsum([piece.num_rows for piece in pieces])
        self.sizes = np.concatenate([row_bytes(piece) for piece in pieces])

    def __iter__(self) -> Iterator[pa.Table]:
        return iter(self._pieces)

    def select(self, names: Sequence[str]) -> Rows:
        """Return the same rows with some of their columns."""
        return Rows([piece.select(names) for piece in self._pieces])

    def take(self, positions: np.ndarray) -> pa.Table:
        """Return rows by position, int64 (n,), in the memory of the largest piece.

        Arrow's own take would bring all pieces into memory.
        """
        if len(self._pieces) == 1:
            return self._pieces[0].take(pa.array(positions))
        order = np.argsort(positions, kind="stable")
        wanted = positions[order]
        cuts = np.searchsorted(wanted, self._ends)
        taken, start, first = [], 0, 0
        for piece, stop, end in zip(self._pieces, cuts.tolist(), self._ends.tolist(), strict=True):
            if start < stop:
                taken.append(piece.take(pa.array(wanted[start:stop] - first)))
            start, first = stop, end
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return pa.concat_tables(taken).take(pa.array(back))
