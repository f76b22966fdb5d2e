"""Set aside rows that cannot be scored, with their reason and all their columns; never guess."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rankmill import storage
from rankmill.contract.plan import (
    ORIGIN_COLUMNS,
    REFUSAL_COLUMN,
    REJECT_COLUMNS,
    TITLE_CHARS_COLUMN,
    Columns,
)
from rankmill.output.output import Job
from rankmill.tables.schema import folded
from rankmill.tables.titles import scored_documents
from worker.arrow_text import joined, text_bytes
from worker.shard.reader import RowReader, locate_row

# Reasons; rankmill.metrics.REASONS sorts them into classes.
NOT_FINITE = "score is not finite"
REFUSED = "the model refuses it"
TOO_LARGE = "too long for the device's memory"

_FIRST_NOT_ASCII = 0x80


def refusals(table: pa.Table, columns: Columns, *, needs_prompt: bool = False) -> dict[int, str]:
    """Return the rows of a table that cannot be scored: their positions and the first reasons.

    Args:
        table: rows with the texts, the query id and REFUSAL_COLUMN.
        columns: which columns these are.
        needs_prompt: whether a row without a prompt of its own has none.
    """
    refused = {}
    before = table[REFUSAL_COLUMN]
    if before.null_count < len(before):
        refused = {at: reason for at, reason in enumerate(before.to_pylist()) if reason}
    parts = {"query": table[columns.query], "document": scored_documents(table, columns)}
    if columns.prompt is not None:
        parts["prompt"] = table[columns.prompt]
    for name, column in parts.items():
        texts, not_text = _texts(joined(column.cast(pa.large_binary())))
        found = {f"{name} is not UTF-8": not_text}
        if name != "prompt" or needs_prompt:
            found[f"{name} is null"] = _positions(pc.is_null(texts)) if texts.null_count else []
            found[f"{name} is empty"] = _blank(texts)
        for reason, positions in found.items():
            for at in positions:
                refused.setdefault(at, reason)
    if columns.query_id is not None:
        ids = table[columns.query_id]
        for reason, mask in (
            ("null", pc.is_null(ids)),
            ("not a number", pc.is_null(ids, nan_is_null=True)),
        ):
            for at in _positions(mask):
                refused.setdefault(at, f"{columns.query_id} is {reason}")
    return refused


def _texts(values: pa.Array) -> tuple[pa.Array, list[int]]:
    """Return bytes as large_string, null where they are not UTF-8, and these positions."""
    try:
        return values.cast(pa.large_string()), []  # checks all at once, which mostly is enough
    except pa.ArrowInvalid:
        whole = [
            None if value is None or value.decode(errors="ignore").encode() != value else value
            for value in values.to_pylist()
        ]
        texts = pa.array(whole, pa.large_binary()).cast(pa.large_string())
        return texts, _positions(pc.and_(pc.is_null(texts), pc.is_valid(values)))


def _blank(texts: pa.LargeStringArray) -> list[int]:
    """Return the positions of the texts, without nulls, that are empty or only white space.

    The first byte of most texts shows that they are neither.
    """
    bounds, content = text_bytes(texts)
    if not len(content):
        suspects = np.arange(len(texts))
    else:
        first = content[np.minimum(bounds[:-1], len(content) - 1)]
        is_plain = (first > ord(" ")) & (first < _FIRST_NOT_ASCII)
        suspects = np.flatnonzero(~is_plain | (bounds[1:] == bounds[:-1]))
    if not len(suspects):
        return []
    some = texts.take(pa.array(suspects))
    blank = pc.or_(pc.equal(pc.binary_length(some), 0), pc.utf8_is_space(some))
    positions: list[int] = suspects[_positions(pc.fill_null(blank, False))].tolist()
    return positions


def _positions(mask: pa.Array | pa.ChunkedArray) -> list[int]:
    positions: list[int] = np.flatnonzero(mask.to_numpy(zero_copy_only=False)).tolist()
    return positions


def write_rejected(
    job: Job, shard_index: int, rejected: dict[int, str]
) -> storage.Published | None:
    """Publish a shard's rejects, each with its file, row, reason and all input columns.

    Args:
        job: the job, whose input is read again.
        shard_index: the shard's number.
        rejected: row number to reason.

    Returns:
        The published file, or None without rejects. A file of an earlier run then stays until the
        job is finalized.
    """
    if not rejected:
        return None

    def write(file: IO[bytes]) -> None:
        tables = _reject_tables(job, rejected)
        first = next(tables)
        with pq.ParquetWriter(file, first.schema, compression="zstd") as writer:
            for table in chain([first], tables):
                writer.write_table(table)

    return storage.publish(job.output.rejected_uri(shard_index), write)


def _reject_tables(job: Job, rejected: dict[int, str]) -> Iterator[pa.Table]:
    """Read all columns of the rejected rows again: they are few, and scoring needs few columns."""
    rejected_rows = np.array(sorted(rejected))
    first, last = int(rejected_rows[0]), int(rejected_rows[-1])
    for first_row, table in RowReader().tables(job, None, first, batch_rows=4096):
        if first_row > last:
            return
        is_inside = (rejected_rows >= first_row) & (rejected_rows < first_row + table.num_rows)
        rows = rejected_rows[is_inside]
        if not len(rows):
            continue
        table = table.take(rows - first_row)
        if set(ORIGIN_COLUMNS) <= set(table.column_names):  # of an input that was prepared
            files, places = (table[name].to_pylist() for name in ORIGIN_COLUMNS)
        else:
            located = [locate_row(job.plan, row) for row in rows.tolist()]
            files, places = [file.uri for file, _ in located], [row for _, row in located]
        reasons = [rejected[row] for row in rows.tolist()]
        yield _with_origin(table, files, places, reasons)


def _with_origin(
    table: pa.Table, files: list[str], rows: list[int], reasons: list[str]
) -> pa.Table:
    """Put REJECT_COLUMNS before the input's columns, and keep all names apart.

    Readers take no notice of case, so names are compared as they do. An input column gets `input_`
    before its name where an earlier one has it; one of REJECT_COLUMNS gets `reject_`.
    """
    there = (REFUSAL_COLUMN, *ORIGIN_COLUMNS, TITLE_CHARS_COLUMN)
    table = table.drop_columns([name for name in there if name in table.column_names])
    all_names, taken = set(map(folded, table.column_names)), set[str]()
    names = []
    for name in table.column_names:
        apart = name
        while folded(apart) in taken or (apart != name and folded(apart) in all_names):
            apart = f"input_{apart}"
        taken.add(folded(apart))
        names.append(apart)
    table = table.rename_columns(names)
    columns = (
        pa.array(files, pa.string()),
        pa.array(rows, pa.int64()),
        pa.array(reasons, pa.string()),
    )
    for at, (name, column) in enumerate(zip(REJECT_COLUMNS, columns, strict=True)):
        while folded(name) in taken:
            name = f"reject_{name}"
        taken.add(folded(name))
        table = table.add_column(at, name, column)
    return table
