"""Evaluate how well a finished job ranks judged queries, compared with its input's order.

The measures are those of ir-measures and trec_eval. A grade of 1 or more is relevant, nDCG takes
grades as gains, and a document without a judgment is not relevant. Means are over all judged
queries that have a relevant document, as in `trec_eval -c`: a query without candidates counts as 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict

from producer.quality.measures import CUTOFF, cut_at, measures, measures_within
from producer.quality.qrels import Qrels
from producer.quality.rankings import (
    Run,
    job_with_ids,
    ranked_after,
    ranked_before,
    top,
)
from rankmill.contract.drift import Comparison
from rankmill.errors import InputError
from rankmill.output.output import Output
from rankmill.tables.first_stage import first_column

if TYPE_CHECKING:
    from ir_measures import Measure

_N_FLIPS = 100_000
_SIGNS_AT_ONCE = 2**22
_ROUNDING = 1e-9


class Evaluation(BaseModel):
    """The facts that `eval --json` prints.

    Attributes:
        top_k: rows that the job kept per query.
        too_deep: measures with a cutoff beyond `top_k`, which would only look worse after. They
            are cut at `top_k` instead.
        before_by: the order before scoring: the column of the first stage's scores, or `rows`.
        n_judged: queries in the judgments.
        n_queries: judged queries with a relevant document; means are over these.
        n_in_input: those of `n_queries` with candidates in the input.
        n_in_parts: those of `n_queries` with rows in the parts.
        comparisons: of the orders before and after scoring.
        fused: of the order after scoring and that of both stages, where the job has fused them.
    """

    model_config = ConfigDict(frozen=True)

    job_id: str
    output_uri: str
    top_k: int | None
    before_by: str
    n_judged: int
    n_queries: int
    n_in_input: int
    n_in_parts: int
    comparisons: tuple[Comparison, ...]
    fused: tuple[Comparison, ...] = ()
    too_deep: tuple[str, ...] = ()


def evaluate(output: Output, qrels: Qrels, recall_at: Sequence[int] = (100,)) -> Evaluation:
    """Compare the order of a finished job's input with that of its parts.

    Before are all candidates of the input, also rejected ones and those that `top_k` cut. They are
    ordered by the column `score`, high to low, if there is one, else by row. After is by rank. If
    `top_k` cut a query, no measure goes beyond it.
    Equal scores keep the order of the rows; trec_eval orders them by document id. If a query names
    a document twice, the better place counts.

    Args:
        output: of the finished job.
        qrels: the judgments.
        recall_at: the cutoffs of recall, each at least 1.

    Raises:
        InputError: the job is not finished or has no ids, its input changed or has none of the
            judged queries, or ir-measures is not installed.
        JobUnknown: no job was submitted there.
    """
    wanted = measures([CUTOFF], [CUTOFF], dict.fromkeys(recall_at))
    job = job_with_ids(output)
    judged = with_relevant(qrels)
    depth = max((CUTOFF, *recall_at))
    column = first_column(job.plan.schema, job.spec.fuse_col)
    rows = ranked_before(job, column, judged)
    wanted, too_deep = measures_within(wanted, cut_at(rows, job.spec.top_k))
    before = top(rows, depth)
    if not before:
        raise InputError(
            f"{output.uri}: the input has none of the {len(judged):,} queries that have relevant "
            f"documents; does column '{job.plan.columns.query_id}' hold the ids of the judgments?"
        )
    after = top(ranked_after(output, job, judged), depth)
    fused: tuple[Comparison, ...] = ()
    if job.spec.fuse is not None:
        by_both = top(ranked_after(output, job, judged, job.spec.order_column), depth)
        fused = compare_runs(wanted, judged, after, by_both)
    return Evaluation(
        job_id=job.job_id,
        output_uri=output.uri,
        top_k=job.spec.top_k,
        before_by=column or "rows",
        n_judged=len(qrels),
        n_queries=len(judged),
        n_in_input=len(before),
        n_in_parts=len(after),
        comparisons=compare_runs(wanted, judged, before, after),
        fused=fused,
        too_deep=too_deep,
    )


def compare_ndcg(
    old: Output, new: Output, qrels: Qrels, cutoffs: Sequence[int]
) -> tuple[Comparison, ...]:
    """Compare the nDCG of two finished jobs at each cutoff, measured as in `evaluate`.

    A cutoff beyond the `top_k` of one job, where the other has more rows, is lowered to it.

    Raises:
        InputError: as in `evaluate`, or neither job has any of the judged queries.
        JobUnknown: no job was submitted there.
    """
    wanted = measures(cutoffs)
    judged = with_relevant(qrels)
    jobs = [(output, job_with_ids(output)) for output in (old, new)]
    rows = [ranked_after(output, job, judged, job.spec.order_column) for output, job in jobs]
    for (_, job), others in zip(jobs, reversed(rows), strict=True):
        wanted, _ = measures_within(wanted, cut_at(others, job.spec.top_k))
    before, after = (top(each, max(cutoffs)) for each in rows)
    if not before and not after:
        raise InputError(
            f"{old.uri} and {new.uri} have none of the {len(judged):,} queries that have relevant "
            "documents; do the judgments name other queries?"
        )
    return compare_runs(wanted, judged, before, after)


def sign_flip_test(differences: np.ndarray, n_flips: int = _N_FLIPS, seed: int = 0) -> list[float]:
    """Return two-sided p-values of paired differences, by permutation.

    No distribution is assumed. If before and after were the same system, each query's difference
    could as well have the other sign. The p-value is the share of random choices of signs whose sum
    is at least as large as the observed one. The observed signs count as a choice, so no p-value is
    0.

    Sources: the randomization test of Smucker, Allan and Carterette, "A comparison of statistical
    significance tests for information retrieval evaluation", CIKM 2007; the count of Phipson and
    Smyth, "Permutation p-values should never be zero", 2010.

    Args:
        differences: float64 (n_queries, n_measures); all measures share the choices of signs.
        n_flips: how many random choices of signs.
        seed: of the random choices.
    """
    rng = np.random.default_rng(seed)
    seen = np.abs(differences.sum(axis=0)) - _ROUNDING
    n_as_large = np.ones(differences.shape[1])
    n_at_once = max(1, _SIGNS_AT_ONCE // len(differences))
    for start in range(0, n_flips, n_at_once):
        shape = (min(n_at_once, n_flips - start), len(differences))
        signs = 2.0 * rng.integers(0, 2, shape, dtype=np.int8) - 1
        n_as_large += (np.abs(signs @ differences) >= seen).sum(axis=0)
    p_values: list[float] = (n_as_large / (n_flips + 1)).tolist()
    return p_values


def with_relevant(qrels: Qrels) -> Qrels:
    """Return the queries that have a relevant document.

    Raises:
        InputError: there are none.
    """
    judged = {query: docs for query, docs in qrels.items() if any(g > 0 for g in docs.values())}
    if not judged:
        raise InputError("the judgments have no relevant document: every grade is below 1")
    return judged


def compare_runs(
    measures: Sequence[Measure], judged: Qrels, before: Run, after: Run
) -> tuple[Comparison, ...]:
    """Compare two rankings of the judged queries by each measure."""
    values = [by_query(measures, judged, run) for run in (before, after)]
    differences = values[1] - values[0]
    return tuple(
        Comparison(
            measure=str(measure),
            before=float(values[0][:, n].mean()),
            after=float(values[1][:, n].mean()),
            p_value=p_value,
            n_better=int(np.sum(differences[:, n] > 0)),
            n_worse=int(np.sum(differences[:, n] < 0)),
            n_equal=int(np.sum(differences[:, n] == 0)),
        )
        for n, (measure, p_value) in enumerate(
            zip(measures, sign_flip_test(differences), strict=True)
        )
    )


def by_query(measures: Sequence[Measure], judged: Qrels, run: Run) -> np.ndarray:
    """Return float64 (n_queries, n_measures); 0 if the run has no rows of a query."""
    import ir_measures  # an extra, and nothing else needs it

    rows = {query: row for row, query in enumerate(judged)}
    columns = {measure: column for column, measure in enumerate(measures)}
    values = np.zeros((len(rows), len(columns)))
    for metric in ir_measures.iter_calc(measures, judged, run):
        values[rows[metric.query_id], columns[metric.measure]] = metric.value
    return values
