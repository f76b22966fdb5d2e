"""Score a planned job in the calling process: the worker's side of `producer.rerank`.

It runs the shards as a worker does, without claims, heartbeats and retries, since nobody else has
the job. The model stays loaded between two calls.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rankmill.contract.plan import ShardSpec
from rankmill.contract.results import Manifest
from rankmill.errors import JobFailed
from rankmill.output.output import Job
from rankmill.settings import settings
from worker import models
from worker.finalize import check_manifest, make_manifest
from worker.shard.group_checks import check_queries
from worker.shard.reader import RowReader
from worker.shard.run import run_shards
from worker.shard.score import ShardWork

__all__ = ["release", "score"]

# The device that the loaded model is on, as the settings name it.
_device: list[str] = []


def score(job: Job, progress: Callable[[str, int], None]) -> Manifest:
    """Score all shards of a job, and return the sum of their reports.

    Args:
        job: the job; its parts are written to its output.
        progress: called with what is done now, and the pairs that are done.

    Raises:
        JobFailed: more rows were rejected than the job allows.
        RankmillError: as a worker that runs a shard.
    """
    with _threads_restored():
        if _device != [settings().device]:
            release()
        model = models.load(job.spec)
        _device[:] = [settings().device]
        n_before = n_of_shard = 0

        def shards() -> Iterator[ShardSpec]:
            nonlocal n_before, n_of_shard
            for shard_index in range(job.plan.n_shards):
                yield job.shard(shard_index)
                n_before, n_of_shard = n_before + n_of_shard, 0

        def show(n_pairs: int, n_tokens: int) -> None:
            nonlocal n_of_shard
            n_of_shard = n_pairs
            progress("scoring", n_before + n_pairs)

        work = ShardWork(
            model=model,
            worker=f"{socket.gethostname()}:{os.getpid()}",
            window_pairs=settings().window_pairs,
            progress=show,
            scratch=settings().scratch,
            reader=RowReader(),
        )
        reports = list(run_shards(job, shards(), work))
    manifest = make_manifest(job, reports)
    allowed = job.spec.max_reject_rate
    if manifest.n_rejected > allowed * manifest.n_rows:
        reasons = ", ".join(f"{why}: {n:,}" for why, n in manifest.rejects_by_reason.items())
        raise JobFailed(
            f"{manifest.n_rejected:,} of {manifest.n_rows:,} rows were rejected, more than "
            f"--max-reject-rate {allowed:g} allows ({reasons}); repair them, or give a larger one"
        )
    check_manifest(job, manifest)
    check_queries(job)
    return manifest


def release() -> None:
    """Free the model and its memory."""
    models.release()


@contextmanager
def _threads_restored() -> Iterator[None]:
    """Give the caller back its number of torch's threads, which scoring sets."""
    import torch

    before = torch.get_num_threads()
    models.use_cores()
    try:
        yield
    finally:
        torch.set_num_threads(before)
