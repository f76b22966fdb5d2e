"""A readable look at a result: some queries with their first candidates before and after."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import nlargest
from itertools import groupby
from typing import Any

import pyarrow as pa

from rankmill import parquet, storage
from rankmill.output import Job

_LABEL_CHARS = 60
_BATCH_ROWS = 64 * 1024


@dataclass(frozen=True)
class Candidate:
    """A document by its id, or by how it begins, with its place in the other order (from 1)."""

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
        """By how much the new first candidate's score beats the old one's, at the least."""
        scores = {candidate.place_before: candidate.score or 0.0 for candidate in self.after}
        return (self.after[0].score or 0.0) - scores.get(1, self.after[-1].score or 0.0)


def preview(job: Job, n_queries: int = 3, n_candidates: int = 5) -> list[QueryPreview]:
    """The queries of the first part whose first candidate gained most; empty without labels.

    Reads the first part and the input rows of the first shard only.
    """
    columns = job.plan.columns
    label = columns.doc_id or columns.document
    first = job.plan.files[0]
    needed = {label, columns.group_key, columns.query}
    has_columns = {label, columns.group_key} <= set(columns.kept) and columns.candidates is None
    if not has_columns or needed & first.partition.keys():
        return []
    names = [columns.kept[columns.group_key], columns.kept[label], "score"]
    part = storage.stat(job.output.part_uri(0))
    tables = list(parquet.read_rows(part, names, 0, _BATCH_ROWS))
    if not tables:
        return []
    scored = pa.concat_tables(tables).select(names)
    ranked = {key: list(rows) for key, rows in groupby(_rows(scored), _first)}
    found = []
    for key, group in groupby(_rows(_first_input_rows(job, label)), _first):
        rows = list(group)
        places = {row[1]: place for place, row in reversed(list(enumerate(rows, 1)))}
        after = ranked.get(key, [])[:n_candidates]
        if not after or not all(row[1] in places for row in after):
            continue  # rejected as a whole, or its rows reach beyond what was read
        found.append(
            QueryPreview(
                query=_label(rows[0][2]),
                before=[
                    Candidate(_label(row[1]), place, None)
                    for place, row in enumerate(rows[:n_candidates], 1)
                ],
                after=[Candidate(_label(row[1]), places[row[1]], row[2]) for row in after],
            )
        )
    return nlargest(n_queries, found, key=lambda each: each.gain)


def _first_input_rows(job: Job, label: str) -> pa.Table:
    """Key, label and query of the first shard's rows in the first file."""
    columns = [job.plan.columns.group_key, label, job.plan.columns.query]
    rows = parquet.read_rows(
        job.plan.files[0].stat, sorted(set(columns)), 0, max(1, job.plan.shard_bounds[1])
    )
    table = next(rows)
    return pa.Table.from_arrays([table[name] for name in columns], names=["key", "label", "query"])


def _rows(table: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def _first(row: tuple[Any, ...]) -> Any:
    return row[0]


def _label(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _LABEL_CHARS else text[: _LABEL_CHARS - 1] + "…"
