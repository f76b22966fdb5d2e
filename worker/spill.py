"""Rows that wait for their rank: in memory while they are few, else in a file on local disk."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa

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

    def table(self) -> pa.Table | None:
        """All rows in order, from disk without loading them; None of none. Ends the adding."""
        if self._path is None or self._writer is None:
            return pa.concat_tables(self._tables) if self._tables else None
        self._writer.close()
        mapped = self._stack.enter_context(pa.memory_map(str(self._path)))
        return pa.ipc.open_file(mapped).read_all()

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
