"""Finished jobs whose ranking a test chooses: each text is its own score."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from producer.jobs.check import plan_job
from producer.jobs.handle import JobHandle
from rankmill.contract.job import JobSpec
from rankmill.dispatch import Dispatcher
from rankmill.output.output import Job, Output
from rankmill.settings import settings
from tests.support.inputs import write
from worker import models
from worker.engine.scorer import PairWindow, WindowScores
from worker.finalize import finalize
from worker.null_scorer import NullScorer
from worker.shard.run import run_shard
from worker.shard.score import ShardWork


class ReadScorer(NullScorer):
    """A scorer that reads each pair's logit from its document."""

    def score(self, windows: Iterable[PairWindow]) -> Iterator[WindowScores]:
        for window in windows:
            yield WindowScores(
                logits=np.array([float(text) for text in window.documents], dtype=np.float32),
                n_tokens=np.ones(len(window.documents), dtype=np.int32),
                truncated=np.zeros(len(window.documents), dtype=bool),
            )


def planned(rows: list[dict[str, Any]], folder: Path, **options: Any) -> Job:
    """Plan a job over rows whose `document` is a number; write nothing."""
    source = write(rows, folder / "in.parquet", row_group_size=max(3, len(rows) // 9))
    return plan_job(
        JobSpec(
            **{
                "input_uri": str(source),
                "output_uri": str(folder / "out"),
                "model_id": "null",
                **options,
            }
        )
    )


def finished(job: Job) -> Output:
    """Run the job in this process and mark it as done."""
    loaded = replace(models.load(job.spec), scorer=ReadScorer(None))
    work = ShardWork(loaded, "test", 8)
    job.output.write_job(job.record)
    job.output.write_plan(job.plan)
    for shard_index in range(job.plan.n_shards):
        run_shard(job, job.shard(shard_index), work)
    job.output.mark_success()
    return job.output


def candidates(query_id: str, docs: Sequence[str], ranked: Sequence[str]) -> list[dict[str, Any]]:
    """Return rows of a query in the order of `docs` that a job will rank as `ranked`."""
    return [
        {
            "query_id": query_id,
            "doc_id": doc,
            "query": query_id,
            "document": str(len(ranked) - ranked.index(doc)),
        }
        for doc in docs
    ]


def work_off(handle: JobHandle) -> list[int]:
    """Run the shards without a report, and return their numbers."""
    job = Output(handle.output.uri).load_job()
    work = ShardWork(models.load(job.spec), "test", 8)
    todo = sorted(set(range(job.plan.n_shards)) - job.output.reported_shards())
    for shard_index in todo:
        run_shard(job, job.shard(shard_index), work)
    finalize(Dispatcher(handle.ledger, settings()), job.job_id, job.output.uri)
    return todo
