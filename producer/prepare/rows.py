"""The rows of an input, whatever form its files have: as often as one likes, always the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from rankmill import parquet
from rankmill.errors import InputError
from rankmill.rows import with_partition
from rankmill.spec import ORIGIN_COLUMNS, REFUSAL_COLUMN, InputFile

# What every row brings along beside its own columns.
STATUS_FIELDS = (
    pa.field(REFUSAL_COLUMN, pa.string()),
    pa.field(ORIGIN_COLUMNS[0], pa.string()),
    pa.field(ORIGIN_COLUMNS[1], pa.int64()),
)


class Rows(Protocol):
    @property
    def files(self) -> tuple[InputFile, ...]: ...

    @property
    def schema(self) -> pa.Schema:
        """The rows' own columns."""

    def tables(self, names: Sequence[str]) -> Iterator[pa.Table]:
        """Those of the own columns, then STATUS_COLUMNS; the same rows in order at every call."""


def with_status(
    table: pa.Table, file: InputFile, row_numbers: np.ndarray, refusal: str | None = None
) -> pa.Table:
    """Rows with the place they come from and, if they cannot be scored, why.

    Args:
        row_numbers: int64 (n,), rows or lines of the file from 0.
    """
    values = (refusal, file.uri)
    constant = [pa.repeat(pa.scalar(value, pa.string()), len(row_numbers)) for value in values]
    arrays = [*table.columns, *constant, pa.array(row_numbers, pa.int64())]
    return pa.Table.from_arrays(arrays, schema=schema_with_status(table.schema))


def schema_with_status(schema: pa.Schema) -> pa.Schema:
    return pa.schema([*schema, *STATUS_FIELDS])


@dataclass(frozen=True)
class ParquetRows:
    """
    Attributes:
        schema: as `rankmill.parquet.plain_schema` has it, with the columns that paths give.
        keep_damaged: hand out the rows of a row group that cannot be read, refused and null.
    """

    files: tuple[InputFile, ...]
    schema: pa.Schema
    keep_damaged: bool = False
    batch_rows: int = 4096

    def tables(self, names: Sequence[str]) -> Iterator[pa.Table]:
        schema = pa.schema([self.schema.field(name) for name in names])
        for file in self.files:
            yield from self._read(file, schema)

    def _read(self, file: InputFile, schema: pa.Schema) -> Iterator[pa.Table]:
        stored = [name for name in schema.names if name not in file.partition]
        row = 0
        while row < file.n_rows:
            try:
                for table in parquet.read_rows(file.stat, stored, row, self.batch_rows):
                    numbers = np.arange(row, row + table.num_rows)
                    yield with_status(with_partition(table, file, schema), file, numbers)
                    row += table.num_rows
            except parquet.DamagedRowGroup as damage:
                if not self.keep_damaged:
                    raise InputError(f"{damage}; --damaged reject sets its rows aside") from damage
                reason = f"row group {damage.row_group} is damaged"
                for start in range(row, damage.lost.stop, self.batch_rows):
                    numbers = np.arange(start, min(start + self.batch_rows, damage.lost.stop))
                    nothing = pa.table([pa.nulls(len(numbers), f.type) for f in schema], schema)
                    yield with_status(nothing, file, numbers, reason)
                row = damage.lost.stop
