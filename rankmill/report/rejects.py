"""Read a few rejected rows of each reason, for the page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from rankmill import storage
from rankmill.contract.plan import REJECT_COLUMNS, Columns
from rankmill.output.output import Output
from rankmill.shown import clipped, value_text
from rankmill.tables import parquet
from rankmill.tables.ids import comparable

_EXAMPLES = 3
_ROWS_A_FILE = 1024
_TEXT_CHARS = 160


@dataclass(frozen=True)
class RejectedRow:
    """A row's place in the input, its reason, and its ids and texts."""

    file: str
    row: int
    reason: str
    values: dict[str, str]


def examples(
    output: Output, columns: Columns, shards: Iterable[int], reasons: Iterable[str]
) -> dict[str, list[RejectedRow]]:
    """Return a few rows of each reason, from the beginnings of the shards' rejects."""
    rows_of: dict[str, list[RejectedRow]] = {reason: [] for reason in reasons}
    for shard_index in shards:
        if all(len(rows) >= _EXAMPLES for rows in rows_of.values()):
            break
        for row in _first_rows(output.rejected_uri(shard_index), columns):
            if len(rows_of.setdefault(row.reason, [])) < _EXAMPLES:
                rows_of[row.reason].append(row)
    return {reason: rows for reason, rows in rows_of.items() if rows}


def _first_rows(uri: str, columns: Columns) -> list[RejectedRow]:
    if not storage.exists(uri):
        return []
    table = next(parquet.read_rows(storage.stat(uri), None, 0, _ROWS_A_FILE), None)
    if table is None:
        return []
    # The reject's own columns come first, under other names where the input has these.
    own = [_texts(table.column(at)) for at in range(len(REJECT_COLUMNS))]
    shown = [columns.query_id, columns.doc_id, columns.query, columns.document]
    names = [name for name in dict.fromkeys(shown) if name and name in table.column_names]
    values = [_texts(table[name]) for name in names]
    return [
        RejectedRow(
            file=own[0][at],
            row=int(own[1][at]),
            reason=own[2][at],
            values={name: column[at] for name, column in zip(names, values, strict=True)},
        )
        for at in range(table.num_rows)
    ]


def _texts(column: pa.ChunkedArray) -> list[str]:
    """Return each value as a person reads it, clipped."""
    return [
        "null" if value is None else clipped(value_text(value), _TEXT_CHARS)
        for value in comparable(column).to_pylist()
    ]
