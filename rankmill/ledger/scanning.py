"""Read jobs for a scan for lost work, and let one process at a time scan.

rankmill:turn:NAME             string token of the process that holds the lease; expires
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import redis

from rankmill.errors import EntryBroken
from rankmill.ledger.claims import FINALIZATION, PREPARATION
from rankmill.ledger.client import JobKeys, broker_errors
from rankmill.ledger.counts import JobCounts, checked_count, checked_time
from rankmill.ledger.scripts import HOLD, RELEASE, SEND_AGAIN


class Lease:
    """A lease that one process at a time holds, for as long as it renews it.

    Each method raises BrokerUnavailable when Redis does not answer.
    """

    def __init__(self, client: redis.Redis, name: str, lease_s: float) -> None:
        self._redis = client
        self._key = f"rankmill:turn:{name}"
        self._lease_s = lease_s
        self._token = uuid.uuid4().hex
        self._valid_until = 0.0
        self._since = 0.0
        self._release = client.register_script(RELEASE)
        self._extend = client.register_script(HOLD)
        self._send_again = client.register_script(SEND_AGAIN)

    @property
    def is_held(self) -> bool:
        """Whether this process still holds the lease, by its own clock."""
        return time.monotonic() < self._valid_until

    def hold(self) -> bool:
        """Renew the lease, or take it if it is free; return whether this process holds it."""
        asked_at, lease_ms = time.monotonic(), max(1, int(self._lease_s * 1000))
        with broker_errors():
            had = self._valid_until > 0
            kept = had and bool(self._extend(keys=[self._key], args=[self._token, lease_ms]))
            taken = not kept and bool(self._redis.set(self._key, self._token, nx=True, px=lease_ms))
        if taken:
            self._since = asked_at
        self._valid_until = asked_at + self._lease_s if kept or taken else 0.0
        return kept or taken

    @property
    def held_for_s(self) -> float:
        """Seconds since this process took the lease that it holds."""
        return time.monotonic() - self._since

    def let_lapse(self) -> None:
        """Do not renew the lease, so that it expires."""
        self._valid_until = 0.0

    def release(self) -> None:
        """Let another process take the lease at once."""
        self._valid_until = 0.0
        with broker_errors():
            self._release(keys=[self._key], args=[self._token])

    def may_send_again(self, job_id: str, shard_index: int, due: float) -> bool:
        """Note that a lost shard is sent again; return False if it must not be.

        It must not be if another process holds the lease now, or if the shard was claimed, finished
        or sent again since it was found.
        """
        job = JobKeys(job_id)
        keys = [self._key, job.inflight, job.claim(shard_index)]
        with broker_errors():
            return bool(self._send_again(keys=keys, args=[self._token, shard_index, repr(due)]))


@dataclass(frozen=True)
class ScannedJob:
    """A job as Redis shows it to a scan.

    Attributes:
        counts: its counts; None if Redis has lost them, or if they are broken.
        output_uri: its output, if Redis knows it.
        next_shard: the first shard that was never sent.
        in_flight: the shards sent and not finished, with the time at which they were due.
        claimed: those of its shards, and of its preparation and finalization, that are claimed.
        broken: what is wrong with its entry; empty if nothing is.
    """

    counts: JobCounts | None
    output_uri: str | None = None
    next_shard: int = 0
    in_flight: dict[int, float] = field(default_factory=dict)
    claimed: set[int] = field(default_factory=set)
    broken: str = ""


@dataclass(frozen=True)
class Scan:
    """Several jobs in Redis, and what waited in the queues just before.

    Attributes:
        messages: the raw Celery messages.
        now: the time of Redis's clock, in seconds since 1970.
    """

    jobs: dict[str, ScannedJob]
    messages: list[str]
    now: float


def read_scan(
    client: redis.Redis, job_ids: Sequence[str], lists: Sequence[str], settle_s: float
) -> Scan:
    """Read jobs in two round trips, or in none if there are no jobs.

    The queues are read before the claims. A message that is taken meanwhile counts as waiting.

    Args:
        client: a client of the ledger's Redis.
        job_ids: the jobs.
        lists: all lists in which their messages may wait.
        settle_s: seconds after its due time in which a shard's claim is not read.

    Raises:
        BrokerUnavailable: Redis does not answer.
    """
    if not job_ids:
        return Scan({}, [], 0.0)
    pipe = client.pipeline(transaction=False)
    pipe.time()
    for job_id in job_ids:
        pipe.hgetall(JobKeys(job_id).hash)
        pipe.hvals(JobKeys(job_id).live)
        pipe.zrange(JobKeys(job_id).inflight, 0, -1, withscores=True)
    (seconds, micros), *answers = _answers(pipe)
    now = float(seconds) + float(micros) / 1e6
    answered = zip(job_ids, answers[::3], answers[1::3], answers[2::3], strict=True)
    jobs = {job_id: _scanned(job_id, *answer) for job_id, *answer in answered}
    works = {
        job_id: [
            *(PREPARATION, FINALIZATION),
            *(n for n, due in job.in_flight.items() if due <= now - settle_s),
        ]
        for job_id, job in jobs.items()
        if job.counts is not None and not job.counts.state.is_final
    }
    if not works:
        return Scan(jobs, [], now)
    pipe = client.pipeline(transaction=False)
    for each in lists:
        pipe.lrange(each, 0, -1)
    for job_id, work in works.items():
        pipe.mget([JobKeys(job_id).claim(each) for each in work])
    answers = _answers(pipe)
    waiting, claims = answers[: len(lists)], answers[len(lists) :]
    for (job_id, work), holders in zip(works.items(), claims, strict=True):
        jobs[job_id].claimed.update(
            n for n, holder in zip(work, holders, strict=True) if holder is not None
        )
    messages = [text for each in waiting if isinstance(each, list) for text in each]
    return Scan(jobs, messages, now)


def _answers(pipe: redis.client.Pipeline) -> list[Any]:
    """Return the answers; a key of a wrong type has its error in place of an answer."""
    with broker_errors():
        answers = pipe.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, Exception) and "WRONGTYPE" not in str(answer):
                raise answer
    return answers


def _scanned(job_id: str, fields: Any, live: Any, in_flight: Any) -> ScannedJob:
    output_uri = fields.get("output_uri") if isinstance(fields, dict) else None
    try:
        for answer in (fields, live, in_flight):
            if isinstance(answer, Exception):
                raise EntryBroken(f"job {job_id} is broken in Redis: {answer}")
        return ScannedJob(
            counts=JobCounts.of(job_id, fields, live),
            output_uri=output_uri,
            next_shard=checked_count(fields.get("next_shard", "0")),
            in_flight={checked_count(name): checked_time(due) for name, due in in_flight},
        )
    except (ValueError, EntryBroken) as error:
        return ScannedJob(None, output_uri, broken=f"{error!s:.80}")
