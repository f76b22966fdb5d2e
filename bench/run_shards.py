"""All shards of a job one after the other in this process: a worker without Celery and Redis."""

from __future__ import annotations

from collections.abc import Callable

from rankmill.output.output import Job
from rankmill.settings import settings
from worker import models
from worker.shard.run import run_shards
from worker.shard.score import ShardWork


def run_all_shards(job: Job, after_each: Callable[[], None] = lambda: None) -> None:
    """Run the shards in order and call `after_each` after each one."""
    work = ShardWork(
        model=models.load(job.spec),
        worker="bench",
        window_pairs=settings().window_pairs,
    )
    for _ in run_shards(job, map(job.shard, range(job.plan.n_shards)), work):
        after_each()
