"""The rows of several files as a job sees them, and the runs of equal keys that make query groups.

Rows are numbered through all files in their order.
"""

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
    """Tables of `batch_rows` rows at most from `start_row` on, in the types of `schema`.

    `columns`, or all, are followed by REFUSAL_COLUMN: why a row cannot be scored, or null.

    Raises:
        InputError: a file changed, has a value that the types cannot hold, or is damaged and the
            job does not reject such rows.
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
    """The ends and values of runs of equal keys, the values as `group_keys` gives them."""
    encoded = pc.run_end_encode(_in_one_piece(keys))
    return encoded.run_ends.to_pylist(), group_keys(encoded.values, is_text=is_text)


def group_keys(keys: pa.Array | pa.ChunkedArray, *, is_text: bool) -> list[Any]:
    """What names the query group of each row: strings as bytes, no key as None, NaN too.

    Args:
        is_text: the key is the query's text, where an empty one is no key either.
    """
    array = _in_one_piece(keys)
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), None, array)  # which does not even equal itself
    values = array.to_pylist()
    return [value if value and value.strip() else None for value in values] if is_text else values


def _in_one_piece(keys: pa.Array | pa.ChunkedArray) -> pa.Array:
    array = comparable(keys)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _read_file(
    file: InputFile, wanted: pa.Schema, row: int, batch_rows: int, damaged: Damaged
) -> Iterator[pa.Table]:
    """The file's rows from `row` on, those of a damaged row group without values."""
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
                yield _refused(wanted, n_rows, f"row group {damage.row_group} is damaged")
            row = damage.lost.stop


def _as_planned(table: pa.Table, file: InputFile, first_row: int, wanted: pa.Schema) -> pa.Table:
    """The job's columns and types: those of the file, its path's, nulls for those it lacks."""
    arrays = []
    for field in wanted:
        if field.name in file.partition:
            arrays.append(_given(file.partition[field.name], field.type, table.num_rows))
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


def _given(value: int | str | None, kind: pa.DataType, n_rows: int) -> pa.Array:
    """A column that a file's path or its table's log gives: text as its type writes it."""
    scalar = pa.scalar(value).cast(kind) if isinstance(value, str) else pa.scalar(value, kind)
    return pa.repeat(scalar, n_rows)


def inexact(uri: str, row: int, field: pa.Field, stored: pa.DataType, value: Inexact) -> InputError:
    """The error for a value that the type of its column in the job cannot hold."""
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


def _refused(wanted: pa.Schema, n_rows: int, reason: str) -> pa.Table:
    names = [name for name in wanted.names if name != REFUSAL_COLUMN]
    arrays = [pa.nulls(n_rows, wanted.field(name).type) for name in names]
    reasons = pa.repeat(pa.scalar(reason, pa.string()), n_rows)
    return pa.Table.from_arrays([*arrays, reasons], names=[*names, REFUSAL_COLUMN])
