"""Measure jobs: what one would cost, how well one ranks, what changed between two."""

from __future__ import annotations

import os
from collections.abc import Sequence
from operator import index
from typing import Any, Unpack

from producer.calls.frames import frame_of
from producer.calls.job import find_job
from producer.calls.keywords import JobKeywords, Place, in_python, options_of
from producer.estimates import estimate as estimates
from producer.estimates.estimate import SAMPLE_PAIRS, Estimate
from producer.jobs.handle import JobHandle
from producer.quality import evaluate as evaluation
from producer.quality.drift import diff as differences
from producer.quality.drift.gate import Gate, parse
from producer.quality.evaluate import Evaluation
from producer.quality.judged_tables import evaluate_tables
from producer.quality.qrels import Qrels, read_qrels
from rankmill.contract.drift import Drift
from rankmill.contract.job import JobOptions
from rankmill.errors import InputError
from rankmill.output.output import Output

Result = JobHandle | Output | Place


def estimate(
    input_uri: Place | JobOptions,
    *,
    sample: int = SAMPLE_PAIRS,
    calibrate: bool = True,
    pairs_per_s: float | None = None,
    price_per_hour: float | None = None,
    devices: int | None = None,
    device: str | None = None,
    **options: Unpack[JobKeywords],
) -> Estimate:
    """Estimate a job's rows, tokens, time and cost from a sample; write nothing.

    Args:
        input_uri: the input, or the options of a job with it.
        sample: rows to sample.
        calibrate: measure the rate of a device, for about ten seconds.
        pairs_per_s: the known rate of a device, which is then not measured.
        price_per_hour: of a device, for the cost.
        devices: how many will score; None for those of this machine.
        device: where to measure; None for that of the settings.
        options: job options by the names of the flags.

    Raises:
        InputError: bad input or options, or a model that cannot be loaded.
    """
    with in_python():
        if isinstance(input_uri, JobOptions):
            wanted = input_uri
        else:
            own = (*("sample", "calibrate", "pairs_per_s", "price_per_hour"), "devices", "device")
            places = {"input_uri": input_uri}
            wanted = options_of(JobOptions, "estimate", places, options, own)
        if not isinstance(sample, int) or sample < 1:
            raise InputError(f"estimate(): sample {sample!r} must be 1 or more")
        return estimates.estimate(
            wanted,
            n_sample=sample,
            device=device,
            n_devices=devices,
            pairs_per_s=pairs_per_s,
            calibrate=calibrate,
            price_per_hour=price_per_hour,
        )


def evaluate(
    job: Any,
    qrels: Qrels | Place,
    *,
    before: Any = None,
    recall_at: int | Sequence[int] = (100,),
    query_id_col: str = "query_id",
    doc_id_col: str = "doc_id",
) -> Evaluation:
    """Compare the order before with that of a result, by judgments.

    Args:
        job: a finished job, its output folder, or its id; or a table that `rerank` returned.
        qrels: the judgments: a file, or grades by document id by query id.
        before: the table that `rerank` was given, for a table. Means are over its judged queries.
        recall_at: the cutoffs of recall, each at least 1.
        query_id_col: the column with the query's id, for a table.
        doc_id_col: the column with the document's id, for a table.

    Raises:
        InputError: the job is not finished or has no ids, the judgments cannot be read or have none
            of its queries, or ir-measures is not installed.
        JobUnknown: there is no such job.
    """
    with in_python():
        cutoffs = _cutoffs("recall_at", recall_at)
        if isinstance(job, JobHandle | Output | str | os.PathLike):
            return evaluation.evaluate(output_of(job), judgments(qrels), cutoffs)
        if before is None:
            raise InputError("evaluate() of a table needs before: the table that was reranked")
        tables = frame_of(before).table, frame_of(job).table
        ids = query_id_col, doc_id_col
        return evaluate_tables(*tables, judgments(qrels), cutoffs, ids)


def diff(
    old: Result,
    new: Result,
    *,
    k: int | Sequence[int] = 10,
    fail_if: str | Sequence[str | Gate] = (),
    qrels: Qrels | Place | None = None,
    n_queries: int = 5,
) -> Drift:
    """Measure what changed from one finished job's result to another's, and check the gates.

    Args:
        old: the earlier job, its output folder, or its id.
        new: the later one.
        k: places for churn and nDCG, each at least 1; those of the gates are added.
        fail_if: bounds such as `churn@10>0.3`; `gate.passed` of the result says whether they hold.
        qrels: judgments, to measure nDCG.
        n_queries: how many of the most changed queries to show.

    Raises:
        InputError: a job has not succeeded, the two have no common ids or texts, or judgments name
            none of the queries.
        JobUnknown: there is no such job.
    """
    conditions = [fail_if] if isinstance(fail_if, str) else fail_if
    with in_python():
        return differences.diff(
            output_of(old),
            output_of(new),
            ks=_cutoffs("k", k),
            gates=[parse(gate) if isinstance(gate, str) else gate for gate in conditions],
            qrels=None if qrels is None else judgments(qrels),
            n_queries=n_queries,
        )


def output_of(job: Result) -> Output:
    """Return the output folder of a job.

    Raises:
        JobUnknown: there is no such job.
    """
    if isinstance(job, Output):
        return job
    if isinstance(job, JobHandle):
        return job.output
    return find_job(os.fspath(job)).output


def judgments(qrels: Qrels | Place) -> Qrels:
    """Return judgments with plain grades, or those of a file.

    Raises:
        InputError: they are neither a dict nor a place, or a grade is not a whole number.
    """
    if isinstance(qrels, str | os.PathLike):
        return read_qrels(os.fspath(qrels))
    if not isinstance(qrels, dict):
        kind = type(qrels).__name__
        raise InputError(f"qrels is a file, or grades by document id by query id, not {kind}")
    try:
        return {
            query: {doc: index(grade) for doc, grade in grades.items()}
            for query, grades in qrels.items()
        }
    except TypeError as error:
        raise InputError(f"a grade of the judgments is not a whole number: {error}") from None


def _cutoffs(name: str, given: int | Sequence[int]) -> list[int]:
    """Return one cutoff or several as a list; `name` is the argument.

    Raises:
        InputError: one is not a whole number.
    """
    try:
        return [index(each) for each in ([given] if isinstance(given, int | str) else given)]
    except TypeError:
        raise InputError(f"{name} {given!r}: a cutoff is a whole number") from None
