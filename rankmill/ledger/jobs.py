"""The ledger in Redis: live counts of running jobs, and their window of shards in flight.

It is a cache of what is on storage: all of it may be lost, and `open_job` rebuilds it. Times are by
Redis's clock, so that no machine's clock matters.

    rankmill:jobs                  zset   job id by time of submission
    rankmill:running               hash   priority of each job that is not over
    rankmill:job:ID                hash   state, output_uri, counts; next_shard never sent yet
    rankmill:job:ID:done           bitmap shards that have a report
    rankmill:job:ID:inflight       zset   shards sent, by time sent
    rankmill:turn:NAME             string who has had a turn lately; expires
    rankmill:late                  hash   due time of each schedule's run that misses its deadline
    rankmill:job:ID:replaces       string time of submission of a job whose submitter is removing an
                                          earlier result; expires
    rankmill:job:ID:live           hash   pairs and tokens scored so far of shards being run
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from typing import Any, cast

import redis

from rankmill.contract.job import JobRecord, JobSpec
from rankmill.contract.job_state import LEGAL_MOVES, JobState
from rankmill.contract.plan import Plan
from rankmill.contract.results import ShardReport
from rankmill.errors import EntryBroken, OutputNotReady
from rankmill.ledger.claims import Claims
from rankmill.ledger.client import JobKeys, broker_errors, connect, shared_client
from rankmill.ledger.counts import JobCounts, Progress, checked_count, checked_time
from rankmill.ledger.declines import Declines
from rankmill.ledger.scripts import ADVANCE, FINISH, TAKE_NEXT
from rankmill.ledger.workers import SEEN_S, WORKERS, Workers
from rankmill.settings import Settings, settings

_JOBS = "rankmill:jobs"
_RUNNING = "rankmill:running"
_LATE = "rankmill:late"
_PRIORITIES = frozenset(map(str, range(1, 10)))
_DEFAULT_PRIORITY: int = JobSpec.model_fields["priority"].default
# Longer than it takes to remove any result.
_REPLACES_S = 3600


class Ledger:
    """Every command to Redis that is not sent by Celery.

    Each method raises BrokerUnavailable when Redis does not answer.

    Attributes:
        redis: the client, for tests and measurements; its errors are those of the redis library.
        claims: who may run a shard, and what is known of shards that killed their worker.
        declines: the hosts that could not do a job's work, and why.
        workers: the heartbeats of workers, by queue.
    """

    def __init__(self, client: redis.Redis) -> None:
        self.redis = client
        self._take_next = client.register_script(TAKE_NEXT)
        self._finish = client.register_script(FINISH)
        self._advance = client.register_script(ADVANCE)
        self.claims = Claims(client)
        self.declines = Declines(client)
        self.workers = Workers(client)

    @classmethod
    def connect(cls, settings: Settings) -> Ledger:
        """Return a ledger on the broker's Redis; it connects at its first use."""
        return cls(connect(settings))

    def open_job(
        self,
        record: JobRecord,
        plan: Plan | None,
        reports: Iterable[ShardReport],
        *,
        window: int = 0,
        replaces: bool = False,
    ) -> list[int]:
        """Write a job to Redis from what is on storage; idempotent.

        Args:
            record: the job's record.
            plan: the job's plan; None while it is being prepared.
            reports: the reports of its finished shards.
            window: the number of shards that may be in flight.
            replaces: an earlier result is being removed, and storage does not hold the job yet.

        Returns:
            The first shards, noted as in flight; the caller sends them.
        """
        job = JobKeys(record.job_id)
        done = list(reports)
        reported = {report.shard_index for report in done}
        unsent = (n for n in range(plan.n_shards if plan else 0) if n not in reported)
        first = list(islice(unsent, window))
        state = JobState.RUNNING if plan else JobState.PREPARING
        if plan and len(reported) >= plan.n_shards:
            state = JobState.FINALIZING
        fields = {
            "state": state,
            "output_uri": record.spec.output_uri,
            "n_shards": plan.n_shards if plan else 0,
            "n_rows": plan.n_rows if plan else 0,
            "next_shard": first[-1] + 1 if first else 0,
            "n_shards_done": len(done),
            "n_pairs_done": sum(report.n_rows for report in done),
            "n_tokens": sum(report.n_tokens for report in done),
            "n_rejected": sum(report.n_rejected for report in done),
            "n_reused": sum(report.n_reused for report in done),
            "message": "",
            "model_id": record.spec.model_id,
            "submitted_at": record.submitted_at.timestamp(),
            "n_pairs_before": sum(report.n_rows for report in done),
        }
        now = self.now()
        with broker_errors(), self.redis.pipeline() as pipe:
            pipe.delete(*job.all)
            pipe.hset(job.hash, mapping=cast(dict[Any, Any], fields))
            for report in done:
                pipe.setbit(job.done, report.shard_index, 1)
            if first:
                pipe.zadd(job.inflight, {str(shard_index): now for shard_index in first})
            pipe.hset(_RUNNING, record.job_id, str(record.spec.priority))
            pipe.zadd(_JOBS, {record.job_id: now})
            if replaces:
                pipe.set(job.replaces, record.submitted_at.isoformat(), ex=_REPLACES_S)
            pipe.execute()
        return first

    def check_in_place(self, job_id: str, record: JobRecord | None) -> None:
        """Check that an output's record is not of an earlier result that is being removed.

        Raises:
            OutputNotReady: it is.
        """
        with broker_errors():
            submitted_at = self.redis.get(JobKeys(job_id).replaces)
        is_job = record is not None and record.job_id == job_id
        is_new = record is not None and record.submitted_at.isoformat() == submitted_at
        if submitted_at is not None and not (is_job and is_new):
            raise OutputNotReady(f"an earlier result makes room for job {job_id}")

    def in_place(self, job_id: str) -> None:
        """Note that storage now holds a job that replaces an earlier one."""
        with broker_errors():
            self.redis.delete(JobKeys(job_id).replaces)

    def forget_job(self, job_id: str) -> None:
        """Undo `open_job`."""
        with broker_errors(), self.redis.pipeline() as pipe:
            pipe.hdel(_RUNNING, job_id)
            pipe.zrem(_JOBS, job_id)
            pipe.delete(*JobKeys(job_id).all)
            pipe.execute()

    def counts(self, job_id: str) -> JobCounts | None:
        """Return the job's live counts, or None if Redis does not know it.

        Raises:
            EntryBroken: the entry has a wrong type or value.
        """
        job = JobKeys(job_id)
        with broker_errors(f"job {job_id}"):
            fields = cast(dict[str, str], self.redis.hgetall(job.hash))
            live = cast(list[str], self.redis.hvals(job.live))
        return JobCounts.of(job_id, fields, live)

    def job_ids(self) -> list[str]:
        """Return the ids of the jobs that Redis knows, newest first."""
        with broker_errors(_JOBS):
            return cast(list[str], self.redis.zrevrange(_JOBS, 0, -1))

    def priorities(self) -> dict[str, int]:
        """Return the priority of each job that has not ended; the default for a broken one."""
        with broker_errors(_RUNNING):
            running = cast(dict[str, str], self.redis.hgetall(_RUNNING))
        return {
            job_id: int(priority) if priority in _PRIORITIES else _DEFAULT_PRIORITY
            for job_id, priority in running.items()
        }

    def set_state(self, job_id: str, state: JobState, message: str = "") -> None:
        """Note a state if the transition is legal; an unknown job stays unknown."""
        before = [each for each, moves in LEGAL_MOVES.items() if state in moves]
        key = JobKeys(job_id).hash

        def move(pipe: redis.client.Pipeline) -> None:
            current = pipe.hget(key, "state")
            seconds, _ = pipe.time()
            pipe.multi()
            if current in before:
                pipe.hset(key, items=["state", state, "message", message, "state_at", seconds])

        with broker_errors():  # a transaction, since a producer may cancel but not run scripts
            self.redis.transaction(move, key)

    def end_job(self, job_id: str, state: JobState, message: str, keep_s: int) -> None:
        """Note a final state; let the job's keys expire, and forget long ended jobs."""
        self.set_state(job_id, state, message)
        now = self.now()
        with broker_errors(), self.redis.pipeline() as pipe:
            pipe.hdel(_RUNNING, job_id)
            for key in JobKeys(job_id).all:
                pipe.expire(key, keep_s)
            pipe.zremrangebyscore(_JOBS, 0, now - 2 * keep_s)
            pipe.execute()

    def progress(self, job_id: str) -> Progress | None:
        """Return the counts for the next shards to send; None if Redis does not know the job."""
        keys = [JobKeys(job_id).hash, _RUNNING, WORKERS]
        with broker_errors():
            found = cast(list[Any], self._advance(keys=keys, args=[int(SEEN_S)]))
        if not found:
            return None
        state, *numbers = found
        return Progress(JobState(state), *map(int, numbers))

    def take_next(self, job_id: str, window: int) -> list[int]:
        """Mark the next shards as in flight, up to `window` in all; the caller sends them."""
        job = JobKeys(job_id)
        with broker_errors():
            taken = self._take_next(keys=[job.hash, job.inflight, job.done], args=[window])
        return [int(shard_index) for shard_index in cast(list[int], taken)]

    def in_flight(self, job_id: str) -> dict[int, float]:
        """Return the shards sent and not finished, with the time of sending.

        Raises:
            EntryBroken: the entry has a wrong type or value.
        """
        with broker_errors(f"job {job_id}"):
            pairs = self.redis.zrange(JobKeys(job_id).inflight, 0, -1, withscores=True)
        try:
            return {
                checked_count(name): checked_time(at)
                for name, at in cast(list[tuple[str, float]], pairs)
            }
        except ValueError as error:
            raise EntryBroken(
                f"shards of job {job_id} are broken in Redis: {error!s:.80}"
            ) from error

    def sent_again(self, job_id: str, shard_index: int, in_s: float = 0.0) -> None:
        """Note that a shard's message was sent again, or will be delivered in `in_s` seconds."""
        due = self.now() + in_s
        with broker_errors():
            self.redis.zadd(JobKeys(job_id).inflight, {str(shard_index): due}, xx=True)

    def now(self) -> float:
        """Return the time of Redis's clock, in seconds since 1970."""
        with broker_errors():
            seconds, microseconds = self.redis.time()
        return float(seconds) + float(microseconds) / 1e6

    def finish_shard(self, report: ShardReport) -> int | None:
        """Count a reported shard; return the number now done, or None if Redis lost the job."""
        job = JobKeys(report.job_id)
        with broker_errors():
            n_done = self._finish(
                keys=[job.hash, job.inflight, job.done, job.live, job.tries],
                args=[
                    *(report.shard_index, report.n_rows, report.n_tokens),
                    *(report.n_rejected, report.n_reused, report.wall_s),
                    *(round(1000 * report.device_busy_s), round(1000 * report.wall_s)),
                ],
            )
        return None if cast(int, n_done) < 0 else cast(int, n_done)

    def take_turn(self, name: str, for_s: float) -> bool:
        """Take a turn; return True for one caller among all within `for_s` seconds."""
        key = f"rankmill:turn:{name}"
        with broker_errors():
            return bool(self.redis.set(key, "1", nx=True, px=max(1, int(for_s * 1000))))

    def had_turn(self, name: str) -> bool:
        """Return whether a turn is taken and has not expired."""
        with broker_errors():
            return bool(self.redis.exists(f"rankmill:turn:{name}"))

    def end_turn(self, name: str) -> None:
        """Let the next caller take the turn."""
        with broker_errors():
            self.redis.delete(f"rankmill:turn:{name}")

    def note_late(self, schedule: str, due: str | None) -> None:
        """Raise the alert that a schedule's run will miss its deadline; None clears it."""
        with broker_errors():
            if due is None:
                self.redis.hdel(_LATE, schedule)
            else:
                self.redis.hset(_LATE, schedule, due)

    def late_schedules(self) -> dict[str, str]:
        """Return the due time of the run that misses its deadline, by schedule."""
        with broker_errors(_LATE):
            return cast(dict[str, str], self.redis.hgetall(_LATE))

    def idle_s(self, job_id: str, shard_index: int) -> float:
        """Return for how long no shard of a job was worked on, while this shard waited.

        An unknown job or shard has waited for ever.
        """
        job = JobKeys(job_id)
        with broker_errors(f"job {job_id}"), self.redis.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hget(job.hash, "progress_at")
            pipe.zscore(job.inflight, str(shard_index))
            (seconds, _), progress_at, sent_at = pipe.execute()
        try:
            worked_at = checked_time(float(progress_at or 0))
        except ValueError:
            worked_at = 0.0
        return float(seconds) - max(worked_at, float(sent_at or 0))

    def next_messages(self, queue: str, n: int) -> list[str]:
        """Return the raw Celery messages that a queue delivers next, `n` at most."""
        with broker_errors(queue):
            return cast(list[str], self.redis.lrange(queue, -n, -1))

    def queued(self, queue: str) -> list[str]:
        """Return the raw Celery messages that wait in a queue, a bounded number by design."""
        with broker_errors(queue):
            return cast(list[str], self.redis.lrange(queue, 0, -1))


@lru_cache(maxsize=1)
def ledger() -> Ledger:
    """Return this process's ledger."""
    return Ledger(shared_client(settings()))
