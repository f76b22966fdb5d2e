"""The rows of an input, whatever form its files have: as often as one likes, always the same."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from rankmill.contract.job import ORIGIN_COLUMNS, REFUSAL_COLUMN, InputFile
from rankmill.tables.casts import Inexact, exact_cast
from rankmill.tables.files import Damaged, inexact, read_files
from rankmill.tables.ids import with_id_types

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


def with_status(table: pa.Table, file: InputFile, row_numbers: np.ndarray) -> pa.Table:
    """Rows that may be scored, with the place they come from.

    Args:
        row_numbers: int64 (n,), rows or lines of the file from 0.
    """
    no_refusal = pa.nulls(table.num_rows, pa.string())
    return _with_origin(table.append_column(REFUSAL_COLUMN, no_refusal), file, row_numbers)


def _with_origin(table: pa.Table, file: InputFile, row_numbers: np.ndarray) -> pa.Table:
    uris = pa.repeat(pa.scalar(file.uri, pa.string()), len(row_numbers))
    for name, values in zip(ORIGIN_COLUMNS, (uris, pa.array(row_numbers)), strict=True):
        table = table.append_column(name, values)
    return table


def schema_with_status(schema: pa.Schema) -> pa.Schema:
    return pa.schema([*schema, *STATUS_FIELDS])


@dataclass(frozen=True)
class RowsWithIds:
    """Rows whose ids have the types in which a job holds them."""

    rows: Rows
    schema: pa.Schema

    @classmethod
    def of(cls, rows: Rows, names: Collection[str]) -> Rows:
        schema = with_id_types(rows.schema, names)
        return rows if schema == rows.schema else cls(rows, schema)

    @property
    def files(self) -> tuple[InputFile, ...]:
        return self.rows.files

    def tables(self, names: Sequence[str]) -> Iterator[pa.Table]:
        """
        Raises:
            InputError: an id is not whole.
        """
        fields = [self.schema.field(name) for name in names]
        schema = schema_with_status(pa.schema(fields))
        for table in self.rows.tables(names):
            for at, field in enumerate(fields):
                try:
                    exact = exact_cast(table.column(at), field.type)
                except Inexact as error:
                    uri, row = (table[name][error.at].as_py() for name in ORIGIN_COLUMNS)
                    raise inexact(uri, row, field, table.column(at).type, error) from error
                table = table.set_column(at, field, exact)
            yield table.cast(schema)


@dataclass(frozen=True)
class ParquetRows:
    """
    Attributes:
        schema: as `rankmill.tables.parquet.plain_schema` has it, with the columns that paths give.
        keep_damaged: hand out the rows of a row group that cannot be read, refused and null.
        candidates: the columns of lists, a single one of which may have more than 2 GiB; they are
            given out in large types.
        deleted: of files by their URI, the rows that are left out, in order.
    """

    files: tuple[InputFile, ...]
    schema: pa.Schema
    keep_damaged: bool = False
    batch_rows: int = 4096
    deleted: Mapping[str, np.ndarray] | None = None
    candidates: tuple[str, ...] = ()

    def tables(self, names: Sequence[str]) -> Iterator[pa.Table]:
        damaged: Damaged = "reject" if self.keep_damaged else "fail"
        schema = pa.schema(
            field.with_type(_large(field.type)) if field.name in self.candidates else field
            for field in self.schema
        )
        for file in self.files:
            row, deleted = 0, (self.deleted or {}).get(file.uri)
            for table in read_files([file], schema, names, 0, self.batch_rows, damaged):
                first, row = row, row + table.num_rows
                numbers = np.arange(first, row)
                if deleted is not None:
                    start, stop = np.searchsorted(deleted, (first, row))
                    numbers = np.delete(numbers, deleted[start:stop] - first)
                    table = table.take(pa.array(numbers - first))
                yield _with_origin(table, file, numbers)


def _large(kind: pa.DataType) -> pa.DataType:
    """The type for a column of lists, or their items, whose bytes 32 bits do not count."""
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_large(field.type)) for field in kind.fields])
    if pa.types.is_string(kind):
        return pa.large_string()
    if pa.types.is_binary(kind):
        return pa.large_binary()
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return pa.large_list(_large(kind.value_type)) if any(is_a(kind) for is_a in tests) else kind
