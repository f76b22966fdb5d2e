"""Reorder rows through a scratch file, in bounded memory.

Rows are gathered and sorted by the block of positions that they belong to. Each block's rows are
written as one slice; a block is later read from its slices alone. A block of too many bytes is
reordered the same way, in blocks of fewer rows. Arrow writes and reads the slices, so that every
type is preserved.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa

from rankmill.tables.row_bytes import row_bytes

BLOCK_ROWS = 16384
# A block that is too large to be read at once is split into so many.
_FINER = 16
_GATHERED_BYTES = 128 * 2**20
_POSITION = "_position"  # unlike any other column: it is the last one
_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")


class Shuffle:
    """A scratch file of rows that are read back in the order of their positions.

    Args:
        path: the scratch file, removed at the end.
        schema: the rows' schema.
        n_rows: positions are from 0 to below this; of rows with one position only one is kept.
        gathered_bytes: the bytes held in memory; a single row may have more.
        block_rows: rows in a block.
    """

    def __init__(
        self,
        path: Path,
        schema: pa.Schema,
        n_rows: int,
        gathered_bytes: int = _GATHERED_BYTES,
        block_rows: int = BLOCK_ROWS,
    ) -> None:
        self._schema = schema
        self._n_rows = n_rows
        self._gathered_bytes = gathered_bytes
        self._gathered: list[pa.Table] = []
        self._n_bytes = 0
        self._block_rows = block_rows
        self._slices = [array("q") for _ in range(0, n_rows, block_rows)]
        self._block_bytes = np.zeros(len(self._slices), np.int64)
        self._path = path
        self._file = path.open("w+b")

    def __enter__(self) -> Shuffle:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def add(self, table: pa.Table, positions: np.ndarray) -> None:
        """Add rows.

        Args:
            table: n rows.
            positions: int64 (n,), the position of each.
        """
        plain = [
            # A slice would carry the whole dictionary.
            column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
            for column in table.columns
        ]
        names = [*table.column_names, _POSITION]
        self._gathered.append(pa.Table.from_arrays([*plain, pa.array(positions)], names=names))
        self._n_bytes += self._gathered[-1].nbytes
        if self._n_bytes >= self._gathered_bytes:
            self._write_gathered()

    def blocks(self) -> Iterator[pa.Table]:
        """Yield all rows in order, `block_rows` a table at most; nulls where none was added."""
        self._write_gathered()
        for number, offsets in enumerate(self._slices):
            first = number * self._block_rows
            n_rows = min(self._block_rows, self._n_rows - first)
            if not offsets:
                yield pa.table([pa.nulls(n_rows, f.type) for f in self._schema], self._schema)
                continue
            if self._block_bytes[number] > self._gathered_bytes and n_rows > 1:
                path = self._path.with_name(f"{self._path.name}-{self._block_rows}")
                block_rows = max(1, self._block_rows // _FINER)
                with Shuffle(path, self._schema, n_rows, self._gathered_bytes, block_rows) as finer:
                    for table in map(self._read, offsets):
                        rows = pa.Table.from_arrays(table.columns[:-1], names=self._schema.names)
                        finer.add(rows, table.column(-1).to_numpy() - first)
                    yield from finer.blocks()
                continue
            source = np.full(n_rows, -1, np.int64)
            table = pa.concat_tables(map(self._read, offsets))
            source[table.column(-1).to_numpy() - first] = np.arange(table.num_rows)
            in_order = table.take(pa.array(source, mask=source < 0))
            yield pa.table(in_order.columns[:-1], self._schema)

    def _write_gathered(self) -> None:
        if not self._gathered:
            return
        table = pa.concat_tables(self._gathered).combine_chunks()
        self._gathered, self._n_bytes = [], 0
        blocks = table.column(-1).to_numpy() // self._block_rows
        np.add.at(self._block_bytes, blocks, row_bytes(table))
        order = np.argsort(blocks, kind="stable")
        starts = np.flatnonzero(np.diff(blocks[order], prepend=-1))
        for rows in np.split(order, starts[1:]):
            self._slices[blocks[rows[0]]].append(self._file.tell())
            with pa.ipc.new_stream(self._file, table.schema, options=_OPTIONS) as stream:
                stream.write_table(table.take(pa.array(rows)))

    def _read(self, offset: int) -> pa.Table:
        self._file.seek(offset)
        with pa.ipc.open_stream(self._file) as stream:
            return stream.read_all()


def shuffled(
    path: Path, schema: pa.Schema, tables: Iterable[pa.Table], positions: np.ndarray
) -> Iterator[pa.Table]:
    """Yield the rows of `tables` in the order of `positions`: int64 (n_rows,) for all tables."""
    with Shuffle(path, schema, len(positions)) as shuffle:
        row = 0
        for table in tables:
            shuffle.add(table, positions[row : row + table.num_rows])
            row += table.num_rows
        yield from shuffle.blocks()
