"""A readable look at a result: some queries with their first candidates before and after."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rankmill import storage
from rankmill.output import Job

_LABEL_CHARS = 60


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


def preview(job: Job, n_queries: int = 3, n_candidates: int = 5) -> list[QueryPreview]:
    """The first queries whose best candidate changed; empty where the part has no labels.

    Reads the first part and the input rows of the first shard only.
    """
    columns = job.plan.columns
    label = columns.doc_id or columns.document
    if label not in columns.kept or columns.group_key not in columns.kept:
        return []
    path = storage.local_path(job.output.part_uri(0))
    names = [columns.kept[columns.group_key], columns.kept[label], "score"]
    scored = pq.read_table(path, columns=names).select(names)
    ranked = {
        key: [(row[1], row[2]) for row in rows] for key, rows in groupby(_rows(scored), _first)
    }
    found: list[QueryPreview] = []
    for key, group in groupby(_rows(_first_input_rows(job, label)), _first):
        rows = list(group)
        before = [row[1] for row in rows]
        after = ranked.get(key, [])[:n_candidates]
        if after and before[0] != after[0][0]:
            places = {value: place for place, value in reversed(list(enumerate(before, 1)))}
            found.append(
                QueryPreview(
                    query=_label(rows[0][2]),
                    before=[
                        Candidate(_label(value), place, None)
                        for place, value in enumerate(before[:n_candidates], 1)
                    ],
                    after=[Candidate(_label(value), places[value], s) for value, s in after],
                )
            )
        if len(found) == n_queries:
            break
    return found


def _first_input_rows(job: Job, label: str) -> pa.Table:
    """Key, label and query of the first shard's rows in the first file."""
    columns = [job.plan.columns.group_key, label, job.plan.columns.query]
    with pq.ParquetFile(storage.local_path(job.plan.files[0].uri)) as parquet:
        n_rows = job.plan.shard_bounds[1]
        batches = parquet.iter_batches(batch_size=max(1, n_rows), columns=sorted(set(columns)))
        first = next(batches, None)
    table = pa.Table.from_batches(
        [] if first is None else [first],
        parquet.schema_arrow.empty_table().select(sorted(set(columns))).schema,
    )
    return pa.Table.from_arrays([table[name] for name in columns], names=["key", "label", "query"])


def _rows(table: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def _first(row: tuple[Any, ...]) -> Any:
    return row[0]


def _label(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _LABEL_CHARS else text[: _LABEL_CHARS - 1] + "…"
