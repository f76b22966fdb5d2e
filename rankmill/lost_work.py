"""Find the work of a job that no worker has, by what Redis knows of the job."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from rankmill.broker import FINALIZE, PREPARE, job_task_id, shard_task_id
from rankmill.contract.job_state import JobState
from rankmill.ledger.claims import FINALIZATION, PREPARATION
from rankmill.ledger.counts import JobCounts
from rankmill.ledger.scanning import ScannedJob


@dataclass(frozen=True)
class LostWork:
    """Work that may be lost: it has neither a message nor a claim.

    Attributes:
        works: each shard, or PREPARATION or FINALIZATION, with the time at which it was due.
        has_room: more of the job's shards may be in flight than are.
    """

    works: dict[int, float]
    has_room: bool

    def __bool__(self) -> bool:
        return bool(self.works) or self.has_room


def lost_work(
    job_id: str,
    counts: JobCounts,
    job: ScannedJob,
    waiting: Set[str],
    settled: float,
    window: int,
) -> LostWork:
    """Return the work of a job that may be lost.

    Args:
        job_id: the job's id.
        counts: its counts; it has not ended.
        job: the job as the scan found it in Redis.
        waiting: the task ids of all messages in queues.
        settled: a shard that is due later is not lost, by Redis's clock.
        window: how many of its shards may be in flight.
    """
    is_done = counts.n_shards_done >= counts.n_shards
    if counts.state is JobState.PREPARING:
        task, work = PREPARE, PREPARATION
    elif counts.state is JobState.FINALIZING or is_done:
        task, work = FINALIZE, FINALIZATION
    else:
        shards = {
            shard_index: due
            for shard_index, due in job.in_flight.items()
            if due <= settled
            and shard_index not in job.claimed
            and shard_task_id(job_id, shard_index) not in waiting
        }
        has_room = job.next_shard < counts.n_shards and len(job.in_flight) < window
        return LostWork(shards, has_room)
    is_under_way = work in job.claimed or job_task_id(task, job_id) in waiting
    return LostWork({} if is_under_way else {work: 0.0}, has_room=False)
