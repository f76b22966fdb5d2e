"""Note the work that hosts decline, and decide when no host is left for a job.

    rankmill:job:ID:declined   hash   the last `Decline` of a worker, as JSON, by worker
    rankmill:unfit             zset   "worker: reasons" of a worker that cannot do all work, by time

A job that no host can do must end; one that some host can do must not. So a job fails when every
live worker of the queue has declined it, and no shard has ended meanwhile. A large cluster need not
try all its hosts. A job also fails when three machines have had the same kind of fault for half a
minute, while no shard of it ran or ended. Declines because of settings do not count then, since
settings differ in any rolling change.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import cast

import redis
from pydantic import BaseModel, ConfigDict, ValidationError

from rankmill.errors import Blame, JobFailed
from rankmill.ledger.client import JobKeys, broker_errors

_UNFIT = "rankmill:unfit"
_UNFIT_SEEN_S = 60.0
_MACHINES = 3
_AGREED_FOR_S = 30.0
# A worker that still cannot do the work has tried it again by then.
_COUNTS_FOR_S = 600.0


class Decline(BaseModel):
    """Why a worker could not do a job's work.

    Attributes:
        worker: its id, as `rankmill.host.worker_id` returns it.
        kind: the class of the error.
        n_shards_done: the shards of the job that were done then.
        at: when, by Redis's clock.
        since: when it first declined with the same kind and the same shards done.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    worker: str
    host: str
    machine: str
    reason: str
    kind: str
    blame: Blame
    n_shards_done: int
    at: float
    since: float


class Declines:
    """The declines of all jobs in Redis.

    Each method raises BrokerUnavailable when Redis does not answer.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def note(self, job_id: str, decline: Decline, keep_s: int) -> list[Decline]:
        """Replace a worker's last decline of a job; return all declines of the job that count."""
        key = JobKeys(job_id).declined
        others = self.of_job(job_id, decline.at)
        for last in others:
            if last.worker == decline.worker:
                others.remove(last)
                if (last.kind, last.n_shards_done) == (decline.kind, decline.n_shards_done):
                    decline = decline.model_copy(update={"since": last.since})
                break
        with broker_errors(), self._redis.pipeline() as pipe:
            pipe.hset(key, decline.worker, decline.model_dump_json())
            pipe.expire(key, keep_s)
            pipe.execute()
        return [*others, decline]

    def of_job(self, job_id: str, now: float) -> list[Decline]:
        """Return a job's declines that still count, the oldest first."""
        return self.of_jobs([job_id], now)[job_id]

    def of_jobs(self, job_ids: Sequence[str], now: float) -> dict[str, list[Decline]]:
        """Return the declines of jobs that still count, in one round trip."""
        with broker_errors("declines"), self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hvals(JobKeys(job_id).declined)
            answers = pipe.execute()
        return {
            job_id: _counting(cast(list[str], values), now)
            for job_id, values in zip(job_ids, answers, strict=True)
        }

    def note_unfit(self, worker: str, reasons: str, now: float) -> None:
        """Note that a worker cannot do all work; it is forgotten in a minute."""
        with broker_errors(), self._redis.pipeline() as pipe:
            pipe.zadd(_UNFIT, {f"{worker}: {reasons}": now})
            pipe.zremrangebyscore(_UNFIT, 0, now - _UNFIT_SEEN_S)
            pipe.expire(_UNFIT, int(2 * _UNFIT_SEEN_S))
            pipe.execute()

    def unfit(self, now: float) -> dict[str, str]:
        """Return the reasons of each live worker that cannot do all work, by its id."""
        with broker_errors():
            lines = self._redis.zrange(_UNFIT, 0, -1, withscores=True)
        latest: dict[str, str] = {}  # the reasons of a worker may have changed
        for line, seen in sorted(cast(list[tuple[str, float]], lines), key=lambda each: each[1]):
            if now - seen < _UNFIT_SEEN_S:
                worker, _, reasons = line.partition(": ")
                latest[worker] = reasons
        return dict(sorted(latest.items()))


def is_hopeless(
    declines: Sequence[Decline], live: Collection[str], n_shards_done: int, *, is_running: bool
) -> bool:
    """Return whether no host is left that may do a job's work.

    Args:
        declines: those of the job.
        live: the live workers that take such work.
        n_shards_done: the job's shards that are done.
        is_running: whether a worker runs a shard of the job.
    """
    if is_running:
        return False
    now = max(decline.at for decline in declines)
    # Earlier ones are out of date: some host has done a shard, perhaps the one that declined.
    latest = [decline for decline in declines if decline.n_shards_done == n_shards_done]
    if set(live) <= {decline.worker for decline in latest}:
        return True
    agreeing: dict[str, set[str]] = {}
    for each in latest:
        if each.blame == "host" and now - each.since >= _AGREED_FOR_S:
            agreeing.setdefault(each.kind, set()).add(each.machine)
    return any(len(machines) >= _MACHINES for machines in agreeing.values())


def failure(declines: Sequence[Decline], exit_code: int) -> JobFailed:
    """Return the error of a job that no host can do, with each reason and its hosts."""
    return JobFailed(reasons_by_host(declines), exit_code)


def reasons_by_host(declines: Sequence[Decline]) -> str:
    """Return each reason of some declines with its hosts, in one line."""
    hosts: dict[str, list[str]] = {}
    for decline in declines:
        hosts.setdefault(decline.reason, []).append(_host(decline, declines))
    lines = [f"{why} (on {', '.join(dict.fromkeys(names))})" for why, names in hosts.items()]
    return "; ".join(lines)


def _host(decline: Decline, declines: Sequence[Decline]) -> str:
    """Return the name of a decline's host, with its machine if two have that name."""
    machines = {each.machine for each in declines if each.host == decline.host}
    return decline.host if len(machines) == 1 else f"{decline.host}/{decline.machine[:8]}"


def _counting(values: Sequence[str], now: float) -> list[Decline]:
    """Return the declines that still count, the oldest first.

    Leave out values that are not declines, such as another program's.
    """
    found = []
    for value in values:
        try:
            found.append(Decline.model_validate_json(value))
        except ValidationError:
            continue
    return sorted(
        (each for each in found if now - each.at < _COUNTS_FOR_S), key=lambda each: each.at
    )
