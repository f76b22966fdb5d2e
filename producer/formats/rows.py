"""The rows of an input: one class for every file format, and the columns that each row carries."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from rankmill.contract.plan import ORIGIN_COLUMNS, REFUSAL_COLUMN, InputFile
from rankmill.tables.casts import Inexact, exact_cast
from rankmill.tables.files import inexact
from rankmill.tables.schema import with_id_types

# Every row carries these columns in addition to its own.
_STATUS_FIELDS = (
    pa.field(REFUSAL_COLUMN, pa.string()),
    pa.field(ORIGIN_COLUMNS[0], pa.string()),
    pa.field(ORIGIN_COLUMNS[1], pa.int64()),
)


@dataclass(frozen=True)
class Rows:
    """The rows of an input's files, whatever their format.

    Attributes:
        files: the files, in order.
        schema: the rows' own columns.
        tables: yields the own columns that it is given by name, then STATUS_COLUMNS. Every call
            yields the same rows in the same order.
        candidates: of exploded lists, the columns that describe a candidate.
        title: of exploded lists, the column with the candidates' titles, if they have any.
    """

    files: tuple[InputFile, ...]
    schema: pa.Schema
    tables: Callable[[Sequence[str]], Iterator[pa.Table]]
    candidates: tuple[str, ...] | None = None
    title: str | None = None


def schema_with_status(schema: pa.Schema) -> pa.Schema:
    """Return the schema with STATUS_COLUMNS appended."""
    return pa.schema([*schema, *_STATUS_FIELDS])


def with_status(table: pa.Table, file: InputFile, row_numbers: np.ndarray) -> pa.Table:
    """Append STATUS_COLUMNS to rows that are not refused.

    Args:
        table: n rows of the file.
        file: their file.
        row_numbers: int64 (n,), rows or lines of the file from 0.
    """
    no_refusal = pa.nulls(table.num_rows, pa.string())
    return with_origin(table.append_column(REFUSAL_COLUMN, no_refusal), file, row_numbers)


def with_origin(table: pa.Table, file: InputFile, row_numbers: np.ndarray) -> pa.Table:
    """Append ORIGIN_COLUMNS to rows that have REFUSAL_COLUMN; arguments as of `with_status`."""
    uris = pa.repeat(pa.scalar(file.uri, pa.string()), len(row_numbers))
    for name, values in zip(ORIGIN_COLUMNS, (uris, pa.array(row_numbers)), strict=True):
        table = table.append_column(name, values)
    return table


def with_job_ids(rows: Rows, names: Collection[str]) -> Rows:
    """Return the rows with ids in the types that a job holds them in: floats become integers.

    Args:
        rows: the rows; their `tables` then raises InputError for an id that is not whole.
        names: the id columns; others of these names are ignored.
    """
    schema = with_id_types(rows.schema, names)
    if schema == rows.schema:
        return rows

    def tables(names: Sequence[str]) -> Iterator[pa.Table]:
        fields = [schema.field(name) for name in names]
        for table in rows.tables(names):
            for at, field in enumerate(fields):
                try:
                    exact = exact_cast(table.column(at), field.type)
                except Inexact as error:
                    uri, row = (table[name][error.at].as_py() for name in ORIGIN_COLUMNS)
                    raise inexact(uri, row, field, table.column(at).type, error) from error
                table = table.set_column(at, field, exact)
            yield table.cast(schema_with_status(pa.schema(fields)))

    return replace(rows, schema=schema, tables=tables)
