"""Rows that cannot be scored, set aside with their reason and all their columns; never a guess."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rankmill import storage
from rankmill.contract.job import ORIGIN_COLUMNS, REFUSAL_COLUMN, REJECT_COLUMNS, Columns
from rankmill.output.output import Job
from rankmill.tables.columns import folded
from rankmill.tables.titles import scored_documents
from worker.arrow_text import joined
from worker.shard.ownership import locate_row
from worker.shard.reader import RowReader

NOT_FINITE = "score is not finite"
REFUSED = "the model refuses it"
TOO_LARGE = "too long for the device's memory"


def refusals(table: pa.Table, columns: Columns) -> dict[int, str]:
    """Why which rows of a table cannot be scored, by position; the first reason counts."""
    found = {}
    told = table[REFUSAL_COLUMN]
    if told.null_count < len(told):
        found = {at: reason for at, reason in enumerate(told.to_pylist()) if reason}
    documents = scored_documents(table, columns)
    for name, column in (("query", table[columns.query]), ("document", documents)):
        texts, not_text = _texts(joined(column.cast(pa.large_binary())))
        blank = pc.or_(pc.equal(pc.binary_length(texts), 0), pc.utf8_is_space(texts))
        for reason, positions in (
            (f"{name} is not UTF-8", not_text),
            (f"{name} is null", _positions(pc.is_null(texts))),
            (f"{name} is empty", _positions(pc.fill_null(blank, False))),
        ):
            for at in positions:
                found.setdefault(at, reason)
    if columns.query_id is not None:
        ids = table[columns.query_id]
        for reason, mask in (
            ("null", pc.is_null(ids)),
            ("not a number", pc.is_null(ids, nan_is_null=True)),
        ):
            for at in _positions(mask):
                found.setdefault(at, f"{columns.query_id} is {reason}")
    return found


def _texts(values: pa.Array) -> tuple[pa.Array, list[int]]:
    """Bytes as large_string, null where they are no UTF-8, and where that is."""
    try:
        return values.cast(pa.large_string()), []  # checks all at once, as nearly always is enough
    except pa.ArrowInvalid:
        whole = [
            None if value is None or not _decodes(value) else value for value in values.to_pylist()
        ]
        texts = pa.array(whole, pa.large_binary()).cast(pa.large_string())
        return texts, _positions(pc.and_(pc.is_null(texts), pc.is_valid(values)))


def _positions(mask: pa.Array | pa.ChunkedArray) -> list[int]:
    found: list[int] = np.flatnonzero(mask.to_numpy(zero_copy_only=False)).tolist()
    return found


def _decodes(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def write_rejected(
    job: Job, shard_index: int, rejected: dict[int, str]
) -> storage.Published | None:
    """Publish a shard's rejects: file, row, reason, then the row as it was. None without any."""
    uri = job.output.rejected_uri(shard_index)
    if not rejected:
        storage.remove_file(uri)
        return None

    def write(file: IO[bytes]) -> None:
        tables = (_with_places(job, *each, rejected) for each in _full_rows(job, sorted(rejected)))
        first = next(tables)
        with pq.ParquetWriter(file, first.schema, compression="zstd") as writer:
            for table in chain([first], tables):
                writer.write_table(table)

    return storage.publish(uri, write)


def _with_places(job: Job, rows: list[int], table: pa.Table, rejected: dict[int, str]) -> pa.Table:
    """Rows behind their file, their number there, and the reason."""
    if set(ORIGIN_COLUMNS) <= set(table.column_names):
        places = list(zip(*(table[name].to_pylist() for name in ORIGIN_COLUMNS), strict=True))
    else:
        places = [locate_row(job.plan, row) for row in rows]
    table = table.drop_columns(
        [name for name in (REFUSAL_COLUMN, *ORIGIN_COLUMNS) if name in table.column_names]
    )
    table = table.rename_columns(_apart(table.column_names))
    values = ([uri for uri, _ in places], [row for _, row in places], [rejected[r] for r in rows])
    types = (pa.string(), pa.int64(), pa.string())
    for at, (name, column, kind) in enumerate(zip(REJECT_COLUMNS, values, types, strict=True)):
        table = table.add_column(at, _free_name(name, table), pa.array(column, kind))
    return table


def _free_name(name: str, table: pa.Table) -> str:
    """`name`, or with `reject_` before it as often as the input has such a column."""
    taken = set(map(folded, table.column_names))
    while folded(name) in taken:
        name = f"reject_{name}"
    return name


def _apart(names: list[str]) -> list[str]:
    """The names, with `input_` before those that a reader would take for an earlier one."""
    there, taken = set(map(folded, names)), set[str]()
    found = []
    for name in names:
        apart = name
        while folded(apart) in taken or (apart != name and folded(apart) in there):
            apart = f"input_{apart}"
        taken.add(folded(apart))
        found.append(apart)
    return found


def _full_rows(job: Job, rows: list[int]) -> Iterator[tuple[list[int], pa.Table]]:
    """All columns of some rows, read again: rejects are few, and scoring needs few columns."""
    wanted = np.array(rows)
    for first_row, table in RowReader().tables(job, None, rows[0], batch_rows=4096):
        if first_row > rows[-1]:
            break
        inside = wanted[(wanted >= first_row) & (wanted < first_row + table.num_rows)]
        if len(inside):
            yield inside.tolist(), table.take(inside - first_row)
