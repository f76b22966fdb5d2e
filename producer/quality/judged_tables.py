"""Evaluate a reranked table in memory by judgments, as a finished job is evaluated."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from producer.quality.evaluate import Evaluation, compare_runs, with_relevant
from producer.quality.measures import CUTOFF, cut_at, measures, measures_within
from producer.quality.qrels import Qrels
from producer.quality.rankings import as_rows, top
from rankmill.errors import InputError
from rankmill.tables.first_stage import first_column


def evaluate_tables(
    before: pa.Table,
    after: pa.Table,
    qrels: Qrels,
    recall_at: Sequence[int] = (100,),
    ids: tuple[str, str] = ("query_id", "doc_id"),
) -> Evaluation:
    """Compare the order of a table with that of its reranked rows, as `evaluate` does for a job.

    Means are over the judged queries that the table has, since it may be a sample.

    Args:
        before: all candidates; ordered by the column `score`, if there is one, else by row.
        after: the reranked rows, ordered by `rank`.
        qrels: the judgments.
        recall_at: the cutoffs of recall, each at least 1.
        ids: the columns with the ids of queries and documents.

    Raises:
        InputError: a column is missing, no judged query is in `before`, or ir-measures is not
            installed.
    """
    column = first_column(before.schema)
    for table, names in ((before, ids), (after, (*ids, "rank"))):
        missing = [name for name in names if name not in table.column_names]
        if missing:
            there = ", ".join(table.column_names)
            raise InputError(f"column '{missing[0]}' is missing; the columns there are: {there}")
    judged = with_relevant(qrels)
    depth = max((CUTOFF, *recall_at))
    first = as_rows(before, [*ids, *([column] if column else [])])
    if column is not None:
        first = first.sort_by([("order", "descending")])
    last = as_rows(after, [*ids, "rank"]).sort_by("order")
    runs = [top(rows, depth) for rows in (first, last)]
    found = {query: docs for query, docs in judged.items() if query in runs[0]}
    if not found:
        raise InputError(
            f"the table has none of the {len(judged):,} queries that have relevant documents; does "
            f"column '{ids[0]}' hold the ids of the judgments?"
        )
    wanted = measures([CUTOFF], [CUTOFF], dict.fromkeys(recall_at))
    wanted, too_deep = measures_within(wanted, cut_at(first, _most_rows(last)))
    return Evaluation(
        job_id="",
        output_uri="",
        top_k=None,
        before_by=column or "rows",
        n_judged=len(qrels),
        n_queries=len(found),
        n_in_input=len(found),
        n_in_parts=len(found.keys() & runs[1].keys()),
        comparisons=compare_runs(wanted, found, *runs),
        too_deep=too_deep,
    )


def _most_rows(rows: pa.Table) -> int | None:
    """Return the most rows of a query: what `top_k` was, if it cut one."""
    counts = pc.value_counts(rows["query"]).field("counts")
    most: int | None = pc.max(counts).as_py()
    return most
