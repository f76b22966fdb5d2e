"""What Redis knows of running jobs: live counts, and the window of shards in flight.

All of it can be lost: it is a cache of what stands on storage, and `open_job` makes it again.
Times are Redis's own, so that no machine's clock matters.

    rankmill:jobs                  zset   job id by time of submission
    rankmill:workers               zset   worker by time last seen
    rankmill:takers:QUEUE          zset   worker that takes from the queue, by time last seen
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

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import redis

from rankmill.contract.job import JobRecord
from rankmill.contract.job_state import LEGAL_MOVES, JobState
from rankmill.contract.plan import Plan
from rankmill.contract.results import ShardReport
from rankmill.errors import OutputNotReady
from rankmill.ledger.claims import Claims
from rankmill.ledger.client import JobKeys, broker_errors, connect
from rankmill.settings import Settings, settings

_JOBS = "rankmill:jobs"
_WORKERS = "rankmill:workers"
_TAKERS = "rankmill:takers:"
_RUNNING = "rankmill:running"
_LATE = "rankmill:late"
_WORKER_SEEN_S = 60.0
# Longer than it takes to remove any result.
_REPLACES_S = 3600

# Moves shards from "not sent yet" into flight, as many as the window has room for.
_TAKE_NEXT = """
if redis.call('HGET', KEYS[1], 'state') ~= 'running' then return {} end
local total = tonumber(redis.call('HGET', KEYS[1], 'n_shards'))
local next_shard = tonumber(redis.call('HGET', KEYS[1], 'next_shard'))
local room = tonumber(ARGV[1]) - redis.call('ZCARD', KEYS[2])
local now = redis.call('TIME')[1]
local taken = {}
while room > 0 and next_shard < total do
  if redis.call('GETBIT', KEYS[3], next_shard) == 0 then
    redis.call('ZADD', KEYS[2], now, next_shard)
    taken[#taken + 1] = next_shard
    room = room - 1
  end
  next_shard = next_shard + 1
end
redis.call('HSET', KEYS[1], 'next_shard', next_shard)
return taken
"""

# Counts a finished shard once, however often it is told. -1: the job is not known here.
_FINISH = """
if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[4], ARGV[1])
redis.call('HDEL', KEYS[5], ARGV[1])
if redis.call('SETBIT', KEYS[3], ARGV[1], 1) == 0 then
  redis.call('HINCRBY', KEYS[1], 'n_shards_done', 1)
  redis.call('HINCRBY', KEYS[1], 'n_pairs_done', ARGV[2])
  redis.call('HINCRBY', KEYS[1], 'n_tokens', ARGV[3])
  redis.call('HINCRBY', KEYS[1], 'n_rejected', ARGV[4])
  redis.call('HINCRBY', KEYS[1], 'n_reused', ARGV[5])
  local now = tonumber(redis.call('TIME')[1])
  redis.call('HSETNX', KEYS[1], 'started_at', now - tonumber(ARGV[6]))
  redis.call('HSET', KEYS[1], 'progress_at', now)
end
return tonumber(redis.call('HGET', KEYS[1], 'n_shards_done'))
"""

# Moves a job to a state from those named; one that is not known stays unknown.
_SET_STATE = """
local state = redis.call('HGET', KEYS[1], 'state')
for i = 3, #ARGV do
  if state == ARGV[i] then
    local now = redis.call('TIME')[1]
    redis.call('HSET', KEYS[1], 'state', ARGV[1], 'message', ARGV[2], 'state_at', now)
    return 1
  end
end
return 0
"""


@dataclass(frozen=True)
class JobCounts:
    """A running job as Redis sees it; `n_pairs_done` includes shards being run.

    Times are Redis's, in seconds, and None where nothing happened yet or an earlier release opened
    the job.

    Attributes:
        n_pairs_before: those done when the job was opened.
        started_at: when the first of its shards was begun.
        progress_at: when a pair was scored last, or a shard begun.
        state_at: when it moved to its state, if it ever moved.
    """

    job_id: str
    state: JobState
    output_uri: str
    n_shards: int
    n_shards_done: int
    n_rows: int
    n_pairs_done: int
    n_tokens: int
    n_rejected: int
    n_reused: int
    message: str
    model_id: str
    submitted_at: float | None
    started_at: float | None
    progress_at: float | None
    state_at: float | None
    n_pairs_before: int


class Ledger:
    """Every command to Redis that is not sent by Celery.

    Each method raises BrokerUnavailable when Redis does not answer.

    Attributes:
        redis: the client, for tests and measurements; its errors are those of the redis library.
        claims: who may run a shard, and what is known of shards that killed their worker.
    """

    def __init__(self, client: redis.Redis) -> None:
        self.redis = client
        self._take_next = client.register_script(_TAKE_NEXT)
        self._finish = client.register_script(_FINISH)
        self._set_state = client.register_script(_SET_STATE)
        self.claims = Claims(client)

    @classmethod
    def connect(cls, settings: Settings) -> Ledger:
        """A ledger on the broker's Redis; connects at its first use."""
        return cls(connect(settings))

    def check_writable(self) -> None:
        """Write and remove what a job's start writes: hashes, sets, a queue.

        Call it before anything on storage is changed. A full Redis, a read-only replica, one that
        lacks replicas, and a user without rights answer reads and refuse this.

        Raises:
            BrokerUnavailable: Redis does not take it.
        """
        job, queue = JobKeys(f"probe-{uuid.uuid4().hex}"), f"rankmill.probe-{uuid.uuid4().hex}"
        with broker_errors(), self.redis.pipeline(transaction=True) as pipe:
            pipe.hset(job.hash, "state", "probe")
            pipe.setbit(job.done, 0, 1)
            pipe.zadd(job.inflight, {"0": 0})
            pipe.lpush(queue, "")
            pipe.delete(job.hash, job.done, job.inflight, queue)
            pipe.execute()

    def open_job(
        self,
        record: JobRecord,
        plan: Plan | None,
        reports: Iterable[ShardReport],
        *,
        replaces: bool = False,
    ) -> None:
        """Make what Redis must know of a job from what storage knows; idempotent.

        A job without a plan is being prepared.

        Args:
            replaces: storage does not know the job yet, until an earlier result is removed.
        """
        job = JobKeys(record.job_id)
        done = list(reports)
        fields = {
            "state": JobState.RUNNING if plan else JobState.PREPARING,
            "output_uri": record.spec.output_uri,
            "n_shards": plan.n_shards if plan else 0,
            "n_rows": plan.n_rows if plan else 0,
            "next_shard": 0,
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
            pipe.hset(_RUNNING, record.job_id, str(record.spec.priority))
            pipe.zadd(_JOBS, {record.job_id: now})
            if replaces:
                pipe.set(job.replaces, record.submitted_at.isoformat(), ex=_REPLACES_S)
            pipe.execute()

    def check_in_place(self, job_id: str, record: JobRecord | None) -> None:
        """Check that an output's record is not the one that a new job is about to replace.

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
        """Note that storage knows a job that replaces an earlier one."""
        with broker_errors():
            self.redis.delete(JobKeys(job_id).replaces)

    def forget_job(self, job_id: str) -> None:
        """Take back `open_job`."""
        with broker_errors(), self.redis.pipeline() as pipe:
            pipe.hdel(_RUNNING, job_id)
            pipe.zrem(_JOBS, job_id)
            pipe.delete(*JobKeys(job_id).all)
            pipe.execute()

    def counts(self, job_id: str) -> JobCounts | None:
        """The job's live counts, or None where Redis does not know it."""
        job = JobKeys(job_id)
        with broker_errors():
            fields = cast(dict[str, str], self.redis.hgetall(job.hash))
            live = cast(list[str], self.redis.hvals(job.live))
        if "state" not in fields:  # nothing, or what is left where Redis lost a part
            return None
        running = [tuple(map(int, value.split())) for value in live]
        return JobCounts(
            job_id=job_id,
            state=JobState(fields["state"]),
            output_uri=fields["output_uri"],
            n_shards=int(fields["n_shards"]),
            n_shards_done=int(fields["n_shards_done"]),
            n_rows=int(fields["n_rows"]),
            n_pairs_done=int(fields["n_pairs_done"]) + sum(pairs for pairs, _ in running),
            n_tokens=int(fields["n_tokens"]) + sum(tokens for _, tokens in running),
            n_rejected=int(fields["n_rejected"]),
            n_reused=int(fields.get("n_reused", 0)),
            message=fields["message"],
            model_id=fields.get("model_id", ""),
            submitted_at=_time(fields, "submitted_at"),
            started_at=_time(fields, "started_at"),
            progress_at=_time(fields, "progress_at"),
            state_at=_time(fields, "state_at"),
            n_pairs_before=int(fields.get("n_pairs_before", 0)),
        )

    def job_ids(self) -> list[str]:
        """The jobs that Redis remembers, newest first."""
        with broker_errors():
            return cast(list[str], self.redis.zrevrange(_JOBS, 0, -1))

    def priorities(self) -> dict[str, int]:
        """The priority of each job that is not over."""
        with broker_errors():
            running = cast(dict[str, str], self.redis.hgetall(_RUNNING))
        return {job_id: int(priority) for job_id, priority in running.items()}

    def set_state(self, job_id: str, state: JobState, message: str = "") -> None:
        """Note a state, if the move is legal; a job that Redis does not know stays unknown."""
        before = [each for each, moves in LEGAL_MOVES.items() if state in moves]
        with broker_errors():
            self._set_state(keys=[JobKeys(job_id).hash], args=[state, message, *before])

    def end_job(self, job_id: str, state: JobState, message: str, keep_s: int) -> None:
        """Note a final state; the job's keys expire, and so do the names of earlier ones."""
        self.set_state(job_id, state, message)
        now = self.now()
        with broker_errors(), self.redis.pipeline() as pipe:
            pipe.hdel(_RUNNING, job_id)
            for key in JobKeys(job_id).all:
                pipe.expire(key, keep_s)
            pipe.zremrangebyscore(_JOBS, 0, now - 2 * keep_s)
            pipe.execute()

    def take_next(self, job_id: str, window: int) -> list[int]:
        """Put the next shards into flight, up to `window` in all; the caller sends them."""
        job = JobKeys(job_id)
        with broker_errors():
            taken = self._take_next(keys=[job.hash, job.inflight, job.done], args=[window])
        return [int(shard_index) for shard_index in cast(list[int], taken)]

    def in_flight(self, job_id: str) -> dict[int, float]:
        """Shards sent and not finished, with the time at which they were sent."""
        with broker_errors():
            pairs = self.redis.zrange(JobKeys(job_id).inflight, 0, -1, withscores=True)
        return {int(name): at for name, at in cast(list[tuple[str, float]], pairs)}

    def sent_again(self, job_id: str, shard_index: int, in_s: float = 0.0) -> None:
        """Note that a shard's message was sent again, or will be delivered in a while."""
        due = self.now() + in_s
        with broker_errors():
            self.redis.zadd(JobKeys(job_id).inflight, {str(shard_index): due}, xx=True)

    def now(self) -> float:
        """Redis's clock, in seconds."""
        with broker_errors():
            seconds, microseconds = self.redis.time()
        return float(seconds) + float(microseconds) / 1e6

    def finish_shard(self, report: ShardReport) -> int | None:
        """Count a reported shard: the number now done, or None where Redis lost the job."""
        job = JobKeys(report.job_id)
        with broker_errors():
            n_done = self._finish(
                keys=[job.hash, job.inflight, job.done, job.live, job.tries],
                args=[
                    *(report.shard_index, report.n_rows, report.n_tokens),
                    *(report.n_rejected, report.n_reused, report.wall_s),
                ],
            )
        return None if cast(int, n_done) < 0 else cast(int, n_done)

    def worker_seen(self, worker: str, queues: Iterable[str], *, scores: bool = True) -> None:
        """Note that a worker lives, and the queues that it takes work from now."""
        now = self.now()
        names = [_TAKERS + queue for queue in queues] + ([_WORKERS] if scores else [])
        with broker_errors(), self.redis.pipeline() as pipe:
            for name in names:
                pipe.zadd(name, {worker: now})
                pipe.zremrangebyscore(name, 0, now - _WORKER_SEEN_S)
                pipe.expire(name, int(2 * _WORKER_SEEN_S))
            pipe.execute()

    def n_takers(self, queue: str) -> int:
        """Workers seen within the last minute that take work from a queue."""
        now = self.now()
        with broker_errors():
            return self.redis.zcount(_TAKERS + queue, now - _WORKER_SEEN_S, "+inf")

    def n_workers(self) -> int:
        """Workers seen within the last minute."""
        now = self.now()
        with broker_errors():
            return self.redis.zcount(_WORKERS, now - _WORKER_SEEN_S, "+inf")

    def take_turn(self, name: str, for_s: float) -> bool:
        """True for one caller among all within `for_s` seconds."""
        key = f"rankmill:turn:{name}"
        with broker_errors():
            return bool(self.redis.set(key, "1", nx=True, px=max(1, int(for_s * 1000))))

    def had_turn(self, name: str) -> bool:
        """Whether somebody has taken that turn and its time is not over."""
        with broker_errors():
            return bool(self.redis.exists(f"rankmill:turn:{name}"))

    def end_turn(self, name: str) -> None:
        with broker_errors():
            self.redis.delete(f"rankmill:turn:{name}")

    def note_late(self, schedule: str, due: str | None) -> None:
        """Raise the alert that a schedule's run misses its deadline, or end it."""
        with broker_errors():
            if due is None:
                self.redis.hdel(_LATE, schedule)
            else:
                self.redis.hset(_LATE, schedule, due)

    def late_schedules(self) -> dict[str, str]:
        """The due time of the run that misses its deadline, by schedule."""
        with broker_errors():
            return cast(dict[str, str], self.redis.hgetall(_LATE))

    def queued(self, queue: str) -> list[str]:
        """The raw Celery messages that wait in a queue, a bounded number by design."""
        with broker_errors():
            return cast(list[str], self.redis.lrange(queue, 0, -1))


def _time(fields: dict[str, str], name: str) -> float | None:
    return float(fields[name]) if name in fields else None


@lru_cache(maxsize=1)
def ledger() -> Ledger:
    """The process's connection to the ledger."""
    return Ledger.connect(settings())
