"""Jobs whose shards run in this process, without Celery or Redis."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from producer.jobs.check import plan_job
from rankmill.contract.job import JobSpec
from rankmill.contract.results import ShardReport
from rankmill.output.output import Job
from tests.support.inputs import write
from worker import models
from worker.models import LoadedModel
from worker.shard.run import run_shard
from worker.shard.score import ShardWork


def job_over(source: Path, folder: Path, **options: Any) -> Job:
    """Plan a job from a source to `folder`/out, by the null model unless another is given."""
    places = {"input_uri": str(source), "output_uri": str(folder / "out")}
    return plan_job(JobSpec(**{"model_id": "null", **places, **options}))


def planned(rows: list[dict[str, Any]], folder: Path, model: Path, **options: Any) -> Job:
    """Plan a job over rows, by a model in fp32 unless another precision is given."""
    source = write(rows, folder / "in.parquet", row_group_size=5)
    return job_over(source, folder, **{"model_id": str(model), "precision": "fp32", **options})


def run_all(
    job: Job,
    window_pairs: int = 8,
    guard: Callable[[], None] = lambda: None,
    model: LoadedModel | None = None,
) -> list[ShardReport]:
    """Run all shards of a job, one after the other, and return their reports."""
    work = ShardWork(model or models.load(job.spec), "test", window_pairs, guard=guard)
    return [run_shard(job, job.shard(n), work) for n in range(job.plan.n_shards)]
