"""Rows of several files in a job's types, numbered through all files, and their query groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from rankmill.contract.plan import REFUSAL_COLUMN, InputFile
from rankmill.errors import InputError
from rankmill.tables import parquet
from rankmill.tables.casts import Inexact, exact_cast
from rankmill.tables.ids import comparable

Damaged = Literal["fail", "reject"]


def read_files(
    files: Sequence[InputFile],
    schema: pa.Schema,
    columns: Sequence[str] | None,
    start_row: int,
    batch_rows: int,
    damaged: Damaged,
) -> Iterator[pa.Table]:
    """Yield the rows from `start_row` on in the types of `schema`.

    The columns are followed by REFUSAL_COLUMN: why a row cannot be scored, or null.

    Args:
        files: in the order of the job.
        schema: the job's types of all columns.
        columns: the columns to read; None for all.
        start_row: counted through all files.
        batch_rows: the most rows of a table.
        damaged: fail, or yield the rows of a damaged row group with nulls and the reason.

    Raises:
        InputError: a file changed, has a value that the types cannot hold, or is damaged and
            `damaged` is "fail".
    """
    names = [name for name in columns or schema.names if name != REFUSAL_COLUMN]
    if REFUSAL_COLUMN in schema.names:
        names.append(REFUSAL_COLUMN)
    wanted = pa.schema([schema.field(name) for name in names])
    first_row = 0
    for file in files:
        if first_row + file.n_rows > start_row:
            row = max(start_row - first_row, 0)
            yield from _read_file(file, wanted, row, batch_rows, damaged)
        first_row += file.n_rows


def key_runs(keys: pa.ChunkedArray, *, is_text: bool) -> tuple[list[int], list[Any]]:
    """Return the ends of runs of equal keys, and their values as `group_keys` returns them."""
    encoded = pc.run_end_encode(_in_one_piece(keys))
    return encoded.run_ends.to_pylist(), group_keys(encoded.values, is_text=is_text)


def group_keys(keys: pa.Array | pa.ChunkedArray, *, is_text: bool) -> list[Any]:
    """Return the key of each row's query group: text as bytes; None for null and NaN.

    Args:
        keys: one key for each row.
        is_text: the key is the query's text, so that an empty one becomes None, too.
    """
    array = _in_one_piece(keys)
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), None, array)  # NaN does not equal itself
    values = array.to_pylist()
    return [value if value and value.strip() else None for value in values] if is_text else values


def _in_one_piece(keys: pa.Array | pa.ChunkedArray) -> pa.Array:
    array = comparable(keys)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _read_file(
    file: InputFile, wanted: pa.Schema, row: int, batch_rows: int, damaged: Damaged
) -> Iterator[pa.Table]:
    """Yield the file's rows from `row` on, those of a damaged row group as nulls with a reason."""
    there = [name for name in wanted.names if name not in file.partition]
    stored = [file.names.get(name, name) for name in there]
    may_be_large = any(pa.types.is_large_list(kind) for kind in wanted.types)
    while row < file.n_rows:
        try:
            for table in parquet.read_rows(
                file.stat, stored, row, batch_rows, may_be_large=may_be_large
            ):
                first_row, row = row, row + table.num_rows
                yield _as_planned(table, file, first_row, wanted)
        except parquet.DamagedRowGroup as damage:
            if damaged == "fail":
                raise InputError(f"{damage}; --damaged reject sets its rows aside") from damage
            for start in range(row, damage.lost.stop, batch_rows):
                n_rows = min(batch_rows, damage.lost.stop - start)
                fields = [field for field in wanted if field.name != REFUSAL_COLUMN]
                reason = pa.scalar(f"row group {damage.row_group} is damaged", pa.string())
                nulls = [pa.nulls(n_rows, field.type) for field in fields]
                names = [*(field.name for field in fields), REFUSAL_COLUMN]
                yield pa.table([*nulls, pa.repeat(reason, n_rows)], names)
            row = damage.lost.stop


def _as_planned(table: pa.Table, file: InputFile, first_row: int, wanted: pa.Schema) -> pa.Table:
    """Return the table in the job's types, with the values that the path or a table's log gives."""
    arrays = []
    for field in wanted:
        if field.name in file.partition:
            value, kind = file.partition[field.name], field.type
            is_written = isinstance(value, str)  # as the type writes its values
            scalar = pa.scalar(value).cast(kind) if is_written else pa.scalar(value, kind)
            arrays.append(pa.repeat(scalar, table.num_rows))
            continue
        stored = table[file.names.get(field.name, field.name)]
        try:
            arrays.append(exact_cast(stored, field.type))
        except Inexact as error:
            raise inexact(file.uri, first_row + error.at, field, stored.type, error) from error
    if REFUSAL_COLUMN not in wanted.names:
        wanted = wanted.append(pa.field(REFUSAL_COLUMN, pa.string()))
        arrays.append(pa.nulls(table.num_rows, pa.string()))
    return pa.table(arrays, wanted)


def inexact(uri: str, row: int, field: pa.Field, stored: pa.DataType, value: Inexact) -> InputError:
    """Return the error for a value that its column's type in the job cannot hold."""
    value_type = stored.value_type if pa.types.is_dictionary(stored) else stored
    advice = (
        "write such ids as integers or as text"
        if pa.types.is_floating(value_type) and pa.types.is_integer(field.type)
        else "write the column with one type in all files"
    )
    return InputError(
        f"{uri}, row {row}: column '{field.name}' ({stored}) has {value}, which is not exact as "
        f"{field.type}; {advice}"
    )
