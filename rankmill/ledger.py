"""What Redis knows of running jobs: live counts, the window of shards in flight, who runs what.

All of it can be lost: it is a cache of what stands on storage, and `open_job` makes it again.
Times are Redis's own, so that no machine's clock matters.

    rankmill:jobs                  zset   job id by time of submission
    rankmill:workers               zset   worker by time last seen
    rankmill:running               hash   priority of each job that is not over
    rankmill:job:ID                hash   state, output_uri, counts; next_shard never sent yet
    rankmill:job:ID:done           bitmap shards that have a report
    rankmill:job:ID:inflight       zset   shards sent, by time sent
    rankmill:job:ID:tries          hash   times each unfinished shard was started
    rankmill:job:ID:trial          hash   rows that a suspect shard is scoring
    rankmill:job:ID:deadly         set    rows that killed their worker: "shard first stop"
    rankmill:job:ID:live           hash   pairs and tokens scored so far of shards being run
    rankmill:job:ID:claim:N        string who may run shard N; expires
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from rankmill.errors import BrokerUnavailable
from rankmill.lifecycle import JobState
from rankmill.settings import Settings
from rankmill.spec import JobRecord, Plan, ShardReport

_JOBS = "rankmill:jobs"
_WORKERS = "rankmill:workers"
_RUNNING = "rankmill:running"
_WORKER_SEEN_S = 60.0

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
end
return tonumber(redis.call('HGET', KEYS[1], 'n_shards_done'))
"""

# A claim that has vanished (a flushed Redis) is taken again; one of another holder is not.
_RENEW = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""


@dataclass(frozen=True)
class JobCounts:
    """A running job as Redis sees it; `n_pairs_done` includes shards being run."""

    job_id: str
    state: JobState
    output_uri: str
    n_shards: int
    n_shards_done: int
    n_rows: int
    n_pairs_done: int
    n_tokens: int
    n_rejected: int
    message: str


class Ledger:
    """Every word to Redis that is not Celery's.

    Each method raises BrokerUnavailable when Redis does not answer.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._take_next = client.register_script(_TAKE_NEXT)
        self._finish = client.register_script(_FINISH)
        self._renew = client.register_script(_RENEW)
        self._release = client.register_script(_RELEASE)

    @classmethod
    def connect(cls, settings: Settings) -> Ledger:
        """A ledger on the broker's Redis; connects at its first use."""
        client = redis.Redis.from_url(
            settings.broker_url.replace("redis+socket://", "unix://"),
            decode_responses=True,
            socket_timeout=10,
            socket_connect_timeout=5,
            health_check_interval=15,
            retry=Retry(ExponentialBackoff(cap=1, base=0.05), 4),
            client_name="rankmill",
        )
        return cls(client)

    def open_job(self, record: JobRecord, plan: Plan, reports: Iterable[ShardReport]) -> None:
        """Make what Redis must know of a job from what storage knows; idempotent."""
        job = _Keys(record.job_id)
        done = list(reports)
        fields = {
            "state": JobState.RUNNING,
            "output_uri": record.spec.output_uri,
            "n_shards": plan.n_shards,
            "n_rows": plan.n_rows,
            "next_shard": 0,
            "n_shards_done": len(done),
            "n_pairs_done": sum(report.n_rows for report in done),
            "n_tokens": sum(report.n_tokens for report in done),
            "n_rejected": sum(report.n_rejected for report in done),
            "message": "",
        }
        now = self.now()
        with _broker_errors(), self._redis.pipeline() as pipe:
            pipe.delete(*job.all)
            pipe.hset(job.hash, mapping=cast(dict[Any, Any], fields))
            for report in done:
                pipe.setbit(job.done, report.shard_index, 1)
            pipe.hset(_RUNNING, record.job_id, str(record.spec.priority))
            pipe.zadd(_JOBS, {record.job_id: now})
            pipe.execute()

    def counts(self, job_id: str) -> JobCounts | None:
        """The job's live counts, or None where Redis does not know it."""
        job = _Keys(job_id)
        with _broker_errors():
            fields = cast(dict[str, str], self._redis.hgetall(job.hash))
            live = cast(list[str], self._redis.hvals(job.live))
        if not fields:
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
            message=fields["message"],
        )

    def job_ids(self) -> list[str]:
        """The jobs that Redis remembers, newest first."""
        with _broker_errors():
            return cast(list[str], self._redis.zrevrange(_JOBS, 0, -1))

    def priorities(self) -> dict[str, int]:
        """The priority of each job that is not over."""
        with _broker_errors():
            running = cast(dict[str, str], self._redis.hgetall(_RUNNING))
        return {job_id: int(priority) for job_id, priority in running.items()}

    def set_state(self, job_id: str, state: JobState, message: str = "") -> None:
        """Note a state; a job that Redis does not know stays unknown."""
        key = _Keys(job_id).hash
        with _broker_errors():
            if self._redis.exists(key):
                self._redis.hset(key, mapping={"state": state, "message": message})

    def end_job(self, job_id: str, state: JobState, message: str, keep_s: int) -> None:
        """Note a final state; the job's keys expire, and so do the names of earlier ones."""
        self.set_state(job_id, state, message)
        now = self.now()
        with _broker_errors(), self._redis.pipeline() as pipe:
            pipe.hdel(_RUNNING, job_id)
            for key in _Keys(job_id).all:
                pipe.expire(key, keep_s)
            pipe.zremrangebyscore(_JOBS, 0, now - 2 * keep_s)
            pipe.execute()

    def take_next(self, job_id: str, window: int) -> list[int]:
        """Put the next shards into flight, up to `window` in all; the caller sends them."""
        job = _Keys(job_id)
        with _broker_errors():
            taken = self._take_next(keys=[job.hash, job.inflight, job.done], args=[window])
        return [int(shard_index) for shard_index in cast(list[int], taken)]

    def in_flight(self, job_id: str) -> dict[int, float]:
        """Shards sent and not finished, with the time at which they were sent."""
        with _broker_errors():
            pairs = self._redis.zrange(_Keys(job_id).inflight, 0, -1, withscores=True)
        return {int(name): at for name, at in cast(list[tuple[str, float]], pairs)}

    def sent_again(self, job_id: str, shard_index: int) -> None:
        now = self.now()
        with _broker_errors():
            self._redis.zadd(_Keys(job_id).inflight, {str(shard_index): now}, xx=True)

    def now(self) -> float:
        """Redis's clock, in seconds."""
        with _broker_errors():
            seconds, microseconds = self._redis.time()
        return float(seconds) + float(microseconds) / 1e6

    def finish_shard(self, report: ShardReport) -> int | None:
        """Count a reported shard: the number now done, or None where Redis lost the job."""
        job = _Keys(report.job_id)
        with _broker_errors():
            n_done = self._finish(
                keys=[job.hash, job.inflight, job.done, job.live, job.tries],
                args=[report.shard_index, report.n_rows, report.n_tokens, report.n_rejected],
            )
        return None if cast(int, n_done) < 0 else cast(int, n_done)

    def try_claim(self, job_id: str, shard_index: int, owner: str, claim_s: float) -> str | None:
        """The token of a new claim, or None while somebody holds one."""
        token = f"{owner} {uuid.uuid4().hex}"
        key = _Keys(job_id).claim(shard_index)
        with _broker_errors():
            taken = self._redis.set(key, token, nx=True, px=int(claim_s * 1000))
        return token if taken else None

    def claim_owner(self, job_id: str, shard_index: int) -> str | None:
        with _broker_errors():
            token = cast(str | None, self._redis.get(_Keys(job_id).claim(shard_index)))
        return None if token is None else token.rpartition(" ")[0]

    def break_claim(self, job_id: str, shard_index: int) -> None:
        """Take a claim from a holder that is known to be dead."""
        with _broker_errors():
            self._redis.delete(_Keys(job_id).claim(shard_index))

    def count_try(self, job_id: str, shard_index: int) -> int:
        """Note that a shard is started; the number of times it has been."""
        with _broker_errors():
            return self._redis.hincrby(_Keys(job_id).tries, str(shard_index), 1)

    def set_trial(self, job_id: str, shard_index: int, rows: tuple[int, int] | None) -> None:
        """Note the rows that are about to be scored, or that they were survived."""
        key = _Keys(job_id).trial
        with _broker_errors():
            if rows is None:
                self._redis.hdel(key, str(shard_index))
            else:
                self._redis.hset(key, str(shard_index), f"{rows[0]} {rows[1]}")

    def note_deadly(self, job_id: str, shard_index: int) -> frozenset[tuple[int, int]]:
        """Count rows left on trial as deadly; all ranges of a shard that have killed so far."""
        job = _Keys(job_id)
        with _broker_errors():
            left = cast(str | None, self._redis.hget(job.trial, str(shard_index)))
            if left is not None:
                self._redis.sadd(job.deadly, f"{shard_index} {left}")
                self._redis.hdel(job.trial, str(shard_index))
            members = cast(set[str], self._redis.smembers(job.deadly))
        ranges = [tuple(map(int, member.split())) for member in members]
        return frozenset((first, stop) for n, first, stop in ranges if n == shard_index)

    def renew_claim(
        self, job_id: str, shard_index: int, token: str, claim_s: float, progress: str
    ) -> bool:
        """Keep a claim alive and tell its progress; False when it is somebody else's by now."""
        job = _Keys(job_id)
        with _broker_errors():
            renewed = self._renew(keys=[job.claim(shard_index)], args=[token, int(claim_s * 1000)])
            if renewed and self._redis.exists(job.hash):
                self._redis.hset(job.live, str(shard_index), progress)
        return bool(renewed)

    def release_claim(self, job_id: str, shard_index: int, token: str) -> None:
        job = _Keys(job_id)
        with _broker_errors():
            self._release(keys=[job.claim(shard_index)], args=[token])
            self._redis.hdel(job.live, str(shard_index))

    def worker_seen(self, worker: str) -> None:
        now = self.now()
        with _broker_errors():
            self._redis.zadd(_WORKERS, {worker: now})

    def n_workers(self) -> int:
        """Workers seen within the last minute."""
        now = self.now()
        with _broker_errors():
            self._redis.zremrangebyscore(_WORKERS, 0, now - _WORKER_SEEN_S)
            return self._redis.zcard(_WORKERS)

    def take_turn(self, name: str, for_s: float) -> bool:
        """True for one caller among all within `for_s` seconds."""
        key = f"rankmill:turn:{name}"
        with _broker_errors():
            return bool(self._redis.set(key, "1", nx=True, px=max(1, int(for_s * 1000))))

    def queued(self, queue: str) -> list[str]:
        """The raw Celery messages that wait in a queue, a bounded number by design."""
        with _broker_errors():
            return cast(list[str], self._redis.lrange(queue, 0, -1))


@dataclass(frozen=True)
class _Keys:
    job_id: str

    @property
    def hash(self) -> str:
        return f"rankmill:job:{self.job_id}"

    @property
    def done(self) -> str:
        return f"{self.hash}:done"

    @property
    def inflight(self) -> str:
        return f"{self.hash}:inflight"

    @property
    def tries(self) -> str:
        return f"{self.hash}:tries"

    @property
    def live(self) -> str:
        return f"{self.hash}:live"

    @property
    def trial(self) -> str:
        return f"{self.hash}:trial"

    @property
    def deadly(self) -> str:
        return f"{self.hash}:deadly"

    @property
    def all(self) -> list[str]:
        return [
            *(self.hash, self.done, self.inflight, self.tries),
            *(self.live, self.trial, self.deadly),
        ]

    def claim(self, shard_index: int) -> str:
        return f"{self.hash}:claim:{shard_index}"


@contextmanager
def _broker_errors() -> Iterator[None]:
    try:
        yield
    except redis.AuthenticationError as error:
        raise BrokerUnavailable(f"Redis refuses the login: {error}") from error
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise BrokerUnavailable(
            f"Redis does not answer ({error}); is it running, is RANKMILL_BROKER_URL right?"
        ) from error
