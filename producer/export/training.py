"""Make training data of a finished job, as sentence-transformers' losses take it.

Triplets have `query`, `positive`, `negative` and, as `label`, the margin of the teacher:
logit(positive) - logit(negative). That is the target of MarginMSE (Hofstätter et al., "Improving
efficient neural ranking models with cross-architecture knowledge distillation", 2020). Scores have
`query`, `document` and `label`, for pointwise losses.

Hard negatives are the best-scored candidates that stay below the positive by a margin. A candidate
with almost the positive's score may be relevant, too (Moreira et al., "NV-Retriever: Improving text
embedding models with effective hard-negative mining", 2024).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from producer.export.result_rows import ResultRow
from producer.quality.qrels import Qrels

TRIPLETS = pa.schema(
    [(name, pa.string()) for name in ("query", "positive", "negative")] + [("label", pa.float32())]
)
SCORES = pa.schema([("query", pa.string()), ("document", pa.string()), ("label", pa.float32())])
_BATCH_ROWS = 1024


@dataclass(frozen=True)
class Choice:
    """The rule by which pairs of a query are taken.

    Attributes:
        top: candidates of the first ranks that count; None for all.
        n_positives: the first ranks that are positives, without judgments.
        n_negatives: negatives for each positive, the best-scored first.
        margin: the least difference of the logits of a positive and its negative.
        label: of scores, the logit or the score after the activation.
        qrels: judgments: relevant documents are the positives, and none of them is a negative.
    """

    top: int | None = None
    n_positives: int = 1
    n_negatives: int = 5
    margin: float = 0.0
    label: Literal["score", "logit"] = "score"
    qrels: Qrels | None = None


@dataclass
class Counts:
    """The number of rows made, of queries with rows, and of queries without."""

    n_rows: int = 0
    n_queries: int = 0
    n_without: int = 0


def triplets(
    queries: Iterable[list[ResultRow]], choice: Choice, counts: Counts
) -> Iterator[pa.Table]:
    """Yield triplets of TRIPLETS, and count them in `counts`."""

    def of_query(rows: list[ResultRow]) -> Iterator[tuple[str, str, str, float]]:
        positives, others = _divided(rows, choice)
        for positive in positives:
            below = (
                (row, margin)
                for row in others
                if (margin := positive.logit - row.logit) >= choice.margin
                and row.document != positive.document
            )
            for (row, margin), _ in zip(below, range(choice.n_negatives), strict=False):
                yield positive.query, positive.document, row.document, margin

    return _tables(map(of_query, queries), TRIPLETS, counts)


def scores(
    queries: Iterable[list[ResultRow]], choice: Choice, counts: Counts
) -> Iterator[pa.Table]:
    """Yield pairs with their scores of SCORES, and count them in `counts`."""

    def of_query(rows: list[ResultRow]) -> Iterator[tuple[str, str, float]]:
        for row in _in_rank_order(rows, choice):
            yield row.query, row.document, row.logit if choice.label == "logit" else row.score

    return _tables(map(of_query, queries), SCORES, counts)


def _divided(rows: list[ResultRow], choice: Choice) -> tuple[list[ResultRow], list[ResultRow]]:
    """Return a query's positives, and the candidates for negatives, best first."""
    ranked = _in_rank_order(rows, choice)
    if choice.qrels is None:
        return ranked[: choice.n_positives], ranked[choice.n_positives :]
    grades = choice.qrels.get(rows[0].query_id or "", {})
    relevant = [row for row in rows if grades.get(row.doc_id or "", 0) > 0]
    relevant.sort(key=lambda row: row.rank)
    texts = {row.document for row in relevant}
    return relevant, [row for row in ranked if row.document not in texts]


def _in_rank_order(rows: list[ResultRow], choice: Choice) -> list[ResultRow]:
    ranked = sorted(rows, key=lambda row: row.rank)
    return ranked[: choice.top]


def _tables(
    queries: Iterable[Iterator[tuple[str | float, ...]]], schema: pa.Schema, counts: Counts
) -> Iterator[pa.Table]:
    held: list[tuple[str | float, ...]] = []
    for rows in queries:
        n_before = len(held)
        held += rows
        counts.n_queries += 1
        counts.n_rows += len(held) - n_before
        counts.n_without += len(held) == n_before
        if len(held) >= _BATCH_ROWS:
            yield _table(held, schema)
            held = []
    if held:
        yield _table(held, schema)


def _table(rows: list[tuple[str | float, ...]], schema: pa.Schema) -> pa.Table:
    columns = zip(zip(*rows, strict=True), schema.types, strict=True)
    return pa.table([pa.array(values, kind) for values, kind in columns], schema)
