"""All shards of a job one after the other in this process: a worker without Celery and Redis."""

from __future__ import annotations

from collections.abc import Callable

from rankmill.output.output import Job
from rankmill.settings import settings
from worker import models
from worker.shard.run import run_shard
from worker.shard.score import ShardWork


def run_all_shards(job: Job, after_each: Callable[[], None] = lambda: None) -> None:
    """Run the shards in order and call `after_each` after each one."""
    work = ShardWork(
        model=models.load(job.spec),
        worker="bench",
        window_pairs=settings().window_pairs,
    )
    for shard_index in range(job.plan.n_shards):
        run_shard(job, job.shard(shard_index), work)
        after_each()
