"""A snapshot of a cluster from Redis: jobs, queues, workers, memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import redis

from rankmill.broker import lists_of, queue_of, queues_of, task_id_of
from rankmill.errors import EntryBroken
from rankmill.ledger.client import broker_errors, connect
from rankmill.ledger.counts import JobCounts
from rankmill.ledger.jobs import Ledger
from rankmill.logs import get_logger
from rankmill.settings import Settings

log = get_logger(__name__)

ReadT = TypeVar("ReadT")

# The oldest jobs are read one by one. More of them would cost Redis too much at each scrape.
_MOST_JOBS = 100


@dataclass(frozen=True)
class JobSurvey:
    """A job that is not over.

    Attributes:
        n_queued: shards in the queue, without a worker.
        oldest_queued_s: age of the oldest of them in seconds; 0 if none.
    """

    counts: JobCounts
    priority: int
    n_running: int
    n_queued: int
    oldest_queued_s: float

    @property
    def shards(self) -> dict[str, int]:
        """Return the number of shards in each state."""
        done = self.counts.n_shards_done
        begun = done + self.n_running + self.n_queued
        return {
            "unsent": max(0, self.counts.n_shards - begun),
            "queued": self.n_queued,
            "running": self.n_running,
            "done": done,
        }


@dataclass(frozen=True)
class Survey:
    """The cluster.

    Attributes:
        jobs: the oldest of the `n_jobs` jobs that are not over, at most a hundred.
        queues: waiting messages by queue and priority of their job; "none" for messages without a
            running job.
        n_lost_workers: scoring workers that died within the last hour.
        n_late: schedules whose run is past its deadline.
        memory_used: bytes used by Redis.
        memory_max: its limit in bytes; 0 if it has none.
        n_broken: entries with a wrong type or value; they are left out.
    """

    jobs: list[JobSurvey]
    n_jobs: int
    queues: dict[tuple[str, str], int]
    n_workers: int
    n_lost_workers: int
    n_late: int
    memory_used: int
    memory_max: int
    n_broken: int


class Surveyor:
    """The reader of snapshots."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._ledger = Ledger(client)
        self._n_broken = 0

    @classmethod
    def connect(cls, settings: Settings) -> Surveyor:
        """Return a surveyor of the settings' Redis."""
        return cls(connect(settings))

    def survey(self) -> Survey:
        """Read a snapshot.

        Raises:
            BrokerUnavailable: Redis does not answer.
        """
        self._n_broken = 0
        ledger = self._ledger
        priorities = self._read(ledger.priorities) or {}
        now = ledger.now()
        listed = reversed(self._read(ledger.job_ids) or [])
        oldest = [each for each in listed if each in priorities][:_MOST_JOBS]
        jobs = [self._read(partial(self._job, each, priorities[each], now)) for each in oldest]
        with broker_errors():
            memory = self._redis.info("memory")
        return Survey(
            jobs=[job for job in jobs if job is not None],
            n_jobs=len(priorities),
            queues=self._waiting(priorities),
            n_workers=self._read(ledger.workers.n_live) or 0,
            n_lost_workers=self._read(ledger.workers.n_lost) or 0,
            n_late=len(self._read(ledger.late_schedules) or ()),
            memory_used=int(memory["used_memory"]),
            memory_max=int(memory["maxmemory"]),
            n_broken=self._n_broken,
        )

    def _read(self, read: Callable[[], ReadT]) -> ReadT | None:
        """Read an entry; log and count one that is broken, and return None."""
        try:
            return read()
        except EntryBroken as error:
            log.warning("entry in Redis is broken", error=str(error))
            self._n_broken += 1
            return None

    def _job(self, job_id: str, priority: int, now: float) -> JobSurvey | None:
        counts = self._ledger.counts(job_id)
        if counts is None or counts.state.is_final:
            return None
        sent = self._ledger.in_flight(job_id)
        running = self._ledger.claims.held(job_id, sent)
        waiting = [now - at for shard_index, at in sent.items() if shard_index not in running]
        return JobSurvey(
            counts=counts,
            priority=priority,
            n_running=len(running),
            n_queued=len(waiting),
            oldest_queued_s=max(0.0, *waiting) if waiting else 0.0,
        )

    def _waiting(self, priorities: dict[str, int]) -> dict[tuple[str, str], int]:
        lists = set(lists_of(queues_of("all")))
        with broker_errors():  # processes with other settings may send to more
            lists.update(self._redis.scan_iter("rankmill.*", count=1000, _type="list"))
        waiting: Counter[tuple[str, str]] = Counter()
        for name in sorted(lists):
            queue = queue_of(name)
            waiting[queue, "none"] += 0
            for message in self._read(partial(self._ledger.queued, name)) or ():
                job_id = task_id_of(message).partition("-")[0]
                waiting[queue, str(priorities.get(job_id, "none"))] += 1
        return dict(waiting)
