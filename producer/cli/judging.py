"""`rankmill eval` and `rankmill diff`: measure a finished job, and compare two."""

from __future__ import annotations

from typing import Annotated

import typer

from producer.cli.console import Console
from producer.cli.drift_view import show_drift
from producer.cli.evaluation_view import (
    evaluation_facts,
    evaluation_table,
    tuning_facts,
    tuning_table,
)
from producer.cli.options import JobArgument, JsonFlag
from producer.jobs.handle import find_job
from producer.quality.drift.diff import diff
from producer.quality.drift.gate import parse as parse_gate
from producer.quality.evaluate import evaluate
from producer.quality.qrels import read_qrels
from producer.quality.tuning import tune_fusion
from rankmill.errors import GateFailed, InputError

_FOLDS = 5


def evaluate_job(
    job: JobArgument,
    qrels: Annotated[str, typer.Option("--qrels", help="Judgments: TREC, BEIR's TSV or Parquet")],
    recall_at: Annotated[
        list[int] | None,
        typer.Option("--recall-at", min=1, help="Cutoff of recall; repeatable", show_default="100"),
    ] = None,
    tune: Annotated[
        bool, typer.Option("--tune-fusion", help="Find the best --fuse, by held-out queries")
    ] = False,
    fuse_col: Annotated[
        str | None,
        typer.Option(help="Input column to fuse", show_default="the job's, or score"),
    ] = None,
    folds: Annotated[
        int, typer.Option(min=2, help="Folds of the queries for --tune-fusion")
    ] = _FOLDS,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the folds")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Measure ranking quality by judgments.

    Prints nDCG, MRR and recall before and after reranking.
    """
    if tune:
        if recall_at:
            raise InputError("--recall-at has no effect with --tune-fusion, which is by nDCG@10")
        tuning = tune_fusion(find_job(job).output, read_qrels(qrels), fuse_col, folds, seed)
        if as_json:
            print(tuning.model_dump_json())
        else:
            Console().print(tuning_table(tuning), tuning_facts(tuning), sep="\n")
        return
    tuned = ("--fuse-col", fuse_col, None), ("--folds", folds, _FOLDS), ("--seed", seed, 0)
    for flag, value, default in tuned:
        if value != default:
            raise InputError(f"{flag} {value} needs --tune-fusion")
    evaluation = evaluate(find_job(job).output, read_qrels(qrels), recall_at or [100])
    if as_json:
        print(evaluation.model_dump_json())
    else:
        Console().print(evaluation_table(evaluation), evaluation_facts(evaluation), sep="\n")


def compare_jobs(
    old: Annotated[
        str, typer.Argument(metavar="OLD", help="The earlier job's output folder or id")
    ],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The later job's output folder or id")],
    k: Annotated[
        list[int] | None,
        typer.Option("--k", min=1, help="Cutoff of churn; repeatable", show_default="10"),
    ] = None,
    qrels: Annotated[
        str | None, typer.Option("--qrels", help="Judgments for the change of nDCG, as in eval")
    ] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-if", help='Exit with 1 if this holds, e.g. "churn@10>0.3"; repeatable'
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare the results of two jobs.

    Shows the changes in scores, ranks, pairs and queries.
    """
    gates = [parse_gate(expression) for expression in fail_if or []]
    judgments = read_qrels(qrels) if qrels else None
    with Console(stderr=True).status("comparing"):
        outputs = (find_job(old).output, find_job(new).output)
        drift = diff(*outputs, ks=k or [10], gates=gates, qrels=judgments)
    if as_json:
        print(drift.model_dump_json())
    else:
        show_drift(drift, Console())
    if drift.gate and not drift.gate.passed:
        raise GateFailed(drift.gate.message)
