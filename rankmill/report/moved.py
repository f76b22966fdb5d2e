"""Read the texts of the queries that moved most from the job's input, within a budget of bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate

import pyarrow as pa

from rankmill.contract.plan import Plan
from rankmill.contract.reordering import MovedQuery, MovedRow
from rankmill.logs import get_logger
from rankmill.shown import value_text
from rankmill.tables import parquet
from rankmill.tables.files import read_files

log = get_logger(__name__)

_SHORT_CHARS = 140
_WHOLE_CHARS = 2000
_BATCH_ROWS = 1024
# Row groups are decoded from their beginning, so a large one is not worth a few texts.
_MAX_BYTES = 256 * 2**20


@dataclass(frozen=True)
class ShownText:
    """A text as the page shows it: its beginning, and more of it on demand.

    Attributes:
        whole: up to 2,000 characters; None if `short` is all.
        n_chars: of the text in the input.
    """

    short: str
    whole: str | None
    n_chars: int

    @classmethod
    def of(cls, text: str) -> ShownText:
        """Cut a text, with its white space as single spaces."""
        clean = " ".join(text[: 2 * _WHOLE_CHARS].split())
        if len(clean) <= _SHORT_CHARS:
            return cls(clean, None, len(text))
        return cls(clean[: _SHORT_CHARS - 1] + "…", clean[:_WHOLE_CHARS], len(text))

    @property
    def is_cut(self) -> bool:
        """Whether `whole` lacks the end of the text."""
        return self.n_chars > _WHOLE_CHARS


@dataclass(frozen=True)
class ShownRow:
    """A candidate with its places; None for an id or text that could not be read."""

    moved: MovedRow
    doc_id: str | None
    document: ShownText | None


@dataclass(frozen=True)
class ShownQuery:
    """A query with the candidates that are or were its first."""

    moved: MovedQuery
    query_id: str | None
    query: ShownText | None
    rows: list[ShownRow]


def shown_queries(plan: Plan, moved: Iterable[MovedQuery]) -> list[ShownQuery]:
    """Return queries with their ids and texts, as far as the input can still be read."""
    queries, budget = [], _MAX_BYTES
    for query in moved:
        found: dict[int, dict[str, str]] = {}
        try:
            budget -= _cost(plan, [row.row for row in query.rows])
            if budget >= 0:
                found = dict(_texts(plan, {row.row for row in query.rows}))
        except Exception as error:  # the page is as good without texts
            log.info("report without texts", error=str(error))
        queries.append(_shown(plan, query, found))
    return queries


def _shown(plan: Plan, query: MovedQuery, found: dict[int, dict[str, str]]) -> ShownQuery:
    columns = plan.columns
    first = next(iter(found.values()), {})

    def document(row: MovedRow) -> ShownText | None:
        values = found.get(row.row, {})
        if columns.document not in values:
            return None
        title = values.get(columns.title or "", "")
        return ShownText.of(f"{title} {values[columns.document]}")

    return ShownQuery(
        moved=query,
        query_id=_clipped(first.get(columns.query_id or "")),
        query=ShownText.of(first[columns.query]) if columns.query in first else None,
        rows=[
            ShownRow(row, _clipped(found.get(row.row, {}).get(columns.doc_id or "")), document(row))
            for row in query.rows
        ],
    )


def _clipped(value: str | None) -> str | None:
    return None if value is None else ShownText.of(value).short


def _names(plan: Plan) -> list[str]:
    columns = plan.columns
    wanted = (columns.query_id, columns.doc_id, columns.query, columns.title, columns.document)
    return [name for name in dict.fromkeys(wanted) if name is not None]


def _cost(plan: Plan, rows: list[int]) -> int:
    """Return the uncompressed bytes of the row groups that hold some of the rows."""
    n_bytes, first_row = 0, 0
    for file in plan.files:
        inside = [row - first_row for row in rows if 0 <= row - first_row < file.n_rows]
        first_row += file.n_rows
        if inside:
            stored = [file.names.get(n, n) for n in _names(plan) if n not in file.partition]
            footer = parquet.read_footer(file.stat, stored)
            ends = list(accumulate(footer.group_rows.tolist()))
            groups = {next(n for n, end in enumerate(ends) if row < end) for row in inside}
            n_bytes += sum(int(footer.group_bytes[group]) for group in groups)
    return n_bytes


def _texts(plan: Plan, rows: set[int]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each row's number and values, as text."""
    at, stop = min(rows), max(rows) + 1
    for table in read_files(plan.files, plan.schema, _names(plan), at, _BATCH_ROWS, "reject"):
        inside = [row - at for row in sorted(rows) if at <= row < at + table.num_rows]
        for offset in inside:
            yield at + offset, _values(table.slice(offset, 1), _names(plan))
        at += table.num_rows
        if at >= stop:
            return


def _values(row: pa.Table, names: list[str]) -> dict[str, str]:
    values = {name: row[name][0].as_py() for name in names}
    return {name: value_text(value) for name, value in values.items() if value is not None}
