"""A preview of a result: some queries with their first candidates before and after."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import nlargest
from itertools import groupby, islice
from typing import Any

import pyarrow as pa

from rankmill import storage
from rankmill.logs import get_logger
from rankmill.output.output import Job
from rankmill.shown import clipped, value_text
from rankmill.tables import parquet
from rankmill.tables.files import group_keys, read_files
from rankmill.tables.row_bytes import decoded_bytes

log = get_logger(__name__)

_LABEL_CHARS = 60
_WORD = re.compile(r"[^\W_]+")
_BATCH_ROWS = 64 * 1024
_INPUT_BATCH_ROWS, _INPUT_BATCHES = 2048, 16
_MAX_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Candidate:
    """A document by its id or the begin of its text, with its place in the input (from 1)."""

    label: str
    place_before: int
    score: float | None


@dataclass(frozen=True)
class QueryPreview:
    """One query's first candidates, in input order and by score."""

    query: str
    before: list[Candidate]
    after: list[Candidate]

    @property
    def gain(self) -> float:
        """Return a lower bound of the new first candidate's score minus that of the old one."""
        scores = {candidate.place_before: candidate.score or 0.0 for candidate in self.after}
        return (self.after[0].score or 0.0) - scores.get(1, self.after[-1].score or 0.0)

    @property
    def words_gained(self) -> int:
        """Return how many more words of the query the new first label has than the old one."""
        query = _words(self.query)
        new, old = (_words(shown[0].label) for shown in (self.after, self.before))
        return len(query & new) - len(query & old)


def preview(job: Job, n_queries: int = 3, n_candidates: int = 5) -> list[QueryPreview]:
    """Return queries of the first part whose new first candidate is clearly better.

    Queries come first if their score rose by at least half of the largest rise and their labels
    show the reason: the new label shares more words with the query than the old one. Empty if the
    kept columns have no labels. Reads the first part and the first rows of the input.
    """
    try:
        return _preview(job, n_queries, n_candidates)
    except Exception as error:  # the job has succeeded also without a preview
        log.debug("no preview", error=repr(error))
        return []


def _preview(job: Job, n_queries: int, n_candidates: int) -> list[QueryPreview]:
    columns = job.plan.columns
    label = columns.doc_id or columns.document
    if not {label, columns.group_key} <= set(columns.kept) or columns.candidates is not None:
        return []
    names = [columns.kept[columns.group_key], columns.kept[label], "score"]
    part = storage.stat(job.output.part_uri(0))
    tables = list(_few(parquet.read_rows(part, names, 0, _BATCH_ROWS)))
    if not tables:
        return []
    scored = pa.concat_tables(tables).select(names)
    ranked = {key: list(rows) for key, rows in groupby(_rows(scored), _first)}
    previews = []
    for key, group in groupby(_rows(_first_input_rows(job, label)), _first):
        rows = list(group)
        places = {row[1]: place for place, row in reversed(list(enumerate(rows, 1)))}
        after = ranked.get(key, [])[:n_candidates]
        if not after or not all(row[1] in places for row in after):
            continue  # rejected as a whole, or its rows reach beyond what was read
        previews.append(
            QueryPreview(
                query=_label(rows[0][2]),
                before=[
                    Candidate(_label(row[1]), place, None)
                    for place, row in enumerate(rows[:n_candidates], 1)
                ],
                after=[Candidate(_label(row[1]), places[row[1]], row[2]) for row in after],
            )
        )
    clear = max((each.gain for each in previews), default=0.0) / 2

    def clarity(each: QueryPreview) -> tuple[bool, int, float]:
        is_clear = each.gain >= clear
        return is_clear, each.words_gained if is_clear else 0, each.gain

    return nlargest(n_queries, previews, key=clarity)


def _first_input_rows(job: Job, label: str) -> pa.Table:
    """Return key, label and query of as many rows as can be read while a user waits."""
    plan = job.plan
    columns = [plan.columns.group_key, label, plan.columns.query]
    names = sorted(set(columns))
    tables = read_files(plan.files, plan.schema, names, 0, _INPUT_BATCH_ROWS, damaged="reject")
    table = pa.concat_tables(islice(_few(tables), _INPUT_BATCHES))
    return pa.Table.from_arrays([table[name] for name in columns], names=["key", "label", "query"])


def _few(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    n_bytes = 0
    for table in tables:
        yield table
        n_bytes += decoded_bytes(table)
        if n_bytes >= _MAX_BYTES:
            return


def _rows(table: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(group_keys(column, is_text=False) for column in table.columns), strict=True))


def _first(row: tuple[Any, ...]) -> Any:
    return row[0]


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))


def _label(value: Any) -> str:
    return clipped(" ".join(value_text(value).split()), _LABEL_CHARS)
