"""Rows that wait for their rank: in memory while they are few, else in a file on local disk."""

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
    """A growing table in bounded memory; its file is gone when `stack` is closed."""

    def __init__(self, stack: ExitStack, scratch: str | None) -> None:
        self._stack = stack
        self._scratch = scratch
        self._tables: list[pa.Table] = []
        self._n_bytes = 0
        self._path: Path | None = None
        self._writer: pa.RecordBatchFileWriter | None = None

    def add(self, table: pa.Table) -> None:
        self._n_bytes += table.nbytes
        if self._writer is None and self._n_bytes <= _IN_MEMORY_BYTES:
            self._tables.append(table)
            return
        if self._writer is None:
            self._open(table.schema)
        self._write(table)

    def close(self) -> Rows | None:
        """All rows in the order in which they were added; None of none. Ends the adding."""
        if self._path is None or self._writer is None:
            return Rows([pa.concat_tables(self._tables)]) if self._tables else None
        self._writer.close()
        file = pa.ipc.open_file(self._stack.enter_context(pa.memory_map(str(self._path))))
        batches = map(file.get_batch, range(file.num_record_batches))
        return Rows([pa.Table.from_batches([batch]) for batch in batches])

    def _open(self, schema: pa.Schema) -> None:
        folder = tempfile.TemporaryDirectory(prefix="rankmill-", dir=self._scratch)
        self._path = Path(self._stack.enter_context(folder), "rows.arrow")
        self._writer = pa.ipc.new_file(str(self._path), schema)
        waiting, self._tables = self._tables, []
        for table in waiting:
            self._write(table)

    def _write(self, table: pa.Table) -> None:
        assert self._writer is not None
        # Slices of a window share its buffers, which the file must not hold once more each.
        self._writer.write_table(table.combine_chunks())


class Rows:
    """Rows in pieces, most of them on disk perhaps.

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
        return Rows([piece.select(names) for piece in self._pieces])

    def take(self, positions: np.ndarray) -> pa.Table:
        """Rows by position, int64 (n,), in the memory of the largest piece.

        Arrow's own take would bring all pieces into memory.
        """
        if len(self._pieces) == 1:
            return self._pieces[0].take(pa.array(positions))
        order = np.argsort(positions, kind="stable")
        wanted = positions[order]
        cuts = np.searchsorted(wanted, self._ends)
        found, start, first = [], 0, 0
        for piece, stop, end in zip(self._pieces, cuts.tolist(), self._ends.tolist(), strict=True):
            if start < stop:
                found.append(piece.take(pa.array(wanted[start:stop] - first)))
            start, first = stop, end
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return pa.concat_tables(found).take(pa.array(back))
