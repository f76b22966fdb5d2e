"""Find the fusion of both stages that ranks judged queries best, with held-out queries.

The queries are divided into folds at random. For each fold, the setting that is best on the other
folds is measured on this one. So the reported figure is of queries that did not choose it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from producer.quality.evaluate import by_query, sign_flip_test, with_relevant
from producer.quality.measures import measures
from producer.quality.qrels import Qrels
from producer.quality.rankings import (
    job_with_ids,
    rows_after,
    rows_before,
    top,
)
from rankmill.errors import InputError
from rankmill.output.output import Output
from rankmill.tables.first_stage import first_column, is_number
from rankmill.tables.fusion import reciprocal_ranks, weighted

Method = Literal["rrf", "weighted"]

_CUTOFF = 10
_WEIGHTS = tuple(round(0.05 * n, 2) for n in range(21))
_KS = (1, 2, 5, 10, 20, 40, 60, 100, 200, 500)
_SIGNIFICANT = 0.05


class TunedMethod(BaseModel):
    """One way to fuse, tuned.

    Attributes:
        value: the weight of the model, or the k of rrf, that is best on all judged queries.
        of_folds: the values that were best without each fold.
        ndcg: mean of the queries, each measured with the value that the other folds chose.
        change: `ndcg` minus that of the model's ranks alone.
        p_value: of a paired permutation test of the queries, against the model's ranks.
    """

    model_config = ConfigDict(frozen=True)

    method: Method
    value: float
    of_folds: tuple[float, ...]
    ndcg: float
    change: float
    p_value: float

    @property
    def gains(self) -> bool:
        """Whether the held-out queries rank better, beyond chance."""
        return self.change > 0 and self.p_value < _SIGNIFICANT

    @property
    def flags(self) -> str:
        """The options of a job that fuses so."""
        option = "--fuse-weight" if self.method == "weighted" else "--fuse-k"
        return f"--fuse {self.method} {option} {self.value:g}"


class Tuning(BaseModel):
    """The outcome of tuning.

    Attributes:
        n_queries: judged queries with a relevant document.
        first: mean nDCG@10 of the first stage.
        model: mean nDCG@10 by the model's ranks.
        methods: each way to fuse, with its held-out figures.
    """

    model_config = ConfigDict(frozen=True)

    n_queries: int
    n_folds: int
    seed: int
    first: float
    model: float
    methods: tuple[TunedMethod, ...]

    @property
    def best(self) -> TunedMethod | None:
        """The method with the largest gain; None if none gains beyond chance."""
        gaining = [each for each in self.methods if each.gains]
        return max(gaining, key=lambda each: each.ndcg, default=None)


@dataclass(frozen=True)
class _Pairs:
    """The judged queries' pairs of both stages, the queries one after the other.

    Attributes:
        first: float64 (n,), NaN for none; None if the rows' order is the first stage's ranking.
    """

    queries: list[str]
    docs: list[str]
    groups: np.ndarray
    logits: np.ndarray
    first: np.ndarray | None


def tune_fusion(
    output: Output,
    qrels: Qrels,
    fuse_col: str | None = None,
    n_folds: int = 5,
    seed: int = 0,
) -> Tuning:
    """Find the fusion that ranks the judged queries of a finished job best, by nDCG@10.

    Args:
        output: of the finished job, without `top_k`.
        qrels: the judgments.
        fuse_col: the input's column with the first stage's scores; by default the job's.
        n_folds: into how many parts the queries are divided.
        seed: of the division.

    Raises:
        InputError: the job is not finished, has no ids or a `top_k`, there are fewer queries than
            folds, or ir-measures is not installed.
        JobUnknown: no job was submitted there.
    """
    judged = with_relevant(qrels)
    if not 2 <= n_folds <= len(judged):
        raise InputError(
            f"--folds {n_folds}: give 2 or more, and not more than the {len(judged):,} judged "
            "queries with a relevant document"
        )
    pairs = _pairs(output, judged, fuse_col)
    n_queries = len(judged)
    fold_of = np.random.default_rng(seed).permutation(np.arange(n_queries) % n_folds)
    model = _ndcg(judged, pairs, pairs.logits.astype(np.float64))
    by_order = -np.arange(len(pairs.groups), dtype=np.float64)
    first = pairs.first
    before = by_order if first is None else np.where(np.isnan(first), -np.inf, first)
    methods = [
        _tuned(
            "rrf",
            _KS,
            lambda k: reciprocal_ranks(pairs.groups, pairs.logits, first, int(k)),
            judged,
            pairs,
            fold_of,
            model,
        )
    ]
    if first is not None:
        methods.append(
            _tuned(
                "weighted",
                _WEIGHTS,
                lambda weight: weighted(pairs.groups, pairs.logits, first, weight),
                judged,
                pairs,
                fold_of,
                model,
            )
        )
    return Tuning(
        n_queries=n_queries,
        n_folds=n_folds,
        seed=seed,
        first=float(_ndcg(judged, pairs, before).mean()),
        model=float(model.mean()),
        methods=tuple(methods),
    )


def _tuned(
    method: Method,
    values: Sequence[float],
    fuse: Callable[[float], np.ndarray],
    judged: Qrels,
    pairs: _Pairs,
    fold_of: np.ndarray,
    model: np.ndarray,
) -> TunedMethod:
    """Measure each value on all queries, and choose without each fold; ties take the first."""
    ndcg = np.stack([_ndcg(judged, pairs, fuse(value)) for value in values])
    held_out = np.empty(len(model))
    of_folds = []
    for fold in range(int(fold_of.max()) + 1):
        is_held = fold_of == fold
        best = int(ndcg[:, ~is_held].mean(axis=1).argmax())
        held_out[is_held] = ndcg[best, is_held]
        of_folds.append(float(values[best]))
    difference = held_out - model
    [p_value] = sign_flip_test(difference[:, None])
    return TunedMethod(
        method=method,
        value=float(values[int(ndcg.mean(axis=1).argmax())]),
        of_folds=tuple(of_folds),
        ndcg=float(held_out.mean()),
        change=float(difference.mean()),
        p_value=p_value,
    )


def _ndcg(judged: Qrels, pairs: _Pairs, scores: np.ndarray) -> np.ndarray:
    """Return the nDCG@10 of each judged query by these scores; equal ones keep their order."""
    order = np.lexsort((-scores, pairs.groups))
    ranked = pa.table(
        {
            "query": [pairs.queries[at] for at in order.tolist()],
            "doc": [pairs.docs[at] for at in order.tolist()],
        }
    )
    return by_query(measures([_CUTOFF]), judged, top(ranked, _CUTOFF))[:, 0]


def _pairs(output: Output, judged: Qrels, fuse_col: str | None) -> _Pairs:
    """Return the pairs that both stages have, in the input's order of each query.

    Raises:
        InputError: there are none, or the first stage's scores are missing or not numbers.
    """
    job = job_with_ids(output)
    if job.spec.top_k is not None:
        raise InputError(
            f"{output.uri}: the job wrote the best {job.spec.top_k:,} of each query alone, so that "
            "the first stage has lost rows; tune a job without --top-k"
        )
    schema = job.plan.schema
    if fuse_col is not None and (
        fuse_col not in schema.names or not is_number(schema.field(fuse_col).type)
    ):
        columns = ", ".join(field.name for field in schema if is_number(field.type))
        raise InputError(
            f"--fuse-col {fuse_col}: the job's input has no such column of numbers; it has: "
            f"{columns or 'none'}"
        )
    if fuse_col == "rank" and pa.types.is_integer(schema.field(fuse_col).type):
        raise InputError("--fuse-col rank: of ranks, the lowest is best; leave it out")
    column = first_column(schema, fuse_col or job.spec.fuse_col)
    logits: dict[tuple[str, str], float] = {}
    for query, doc, logit in _values(rows_after(output, job, judged, "logit")):
        logits.setdefault((query, doc), logit)
    rows: dict[str, list[tuple[str, float, float]]] = {}
    for query, doc, score in _values(rows_before(job, column, judged)):
        # A second row of the pair does not count, and a job that fuses rejects infinite scores.
        if (query, doc) in logits and not math.isinf(score):
            rows.setdefault(query, []).append((doc, logits.pop((query, doc)), score))
    if not rows:
        raise InputError(
            f"{output.uri}: has none of the {len(judged):,} queries that have relevant documents"
        )
    flat = [(query, *row) for query, those in rows.items() for row in those]
    queries, docs, ours, theirs = map(list, zip(*flat, strict=True))
    sizes = [len(those) for those in rows.values()]
    return _Pairs(
        queries=queries,
        docs=docs,
        groups=np.repeat(np.arange(len(sizes)), sizes),
        logits=np.array(ours, np.float32),
        first=None if column is None else np.array(theirs, np.float64),
    )


def _values(table: pa.Table) -> list[tuple[str, str, float]]:
    """Return query, document and number of each row that has a document."""
    columns = [table[name].to_pylist() for name in ("query", "doc", "order")]
    nan = float("nan")
    return [
        (query, doc, nan if number is None else number)
        for query, doc, number in zip(*columns, strict=True)
        if doc is not None
    ]
