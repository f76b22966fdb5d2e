"""Who may run a shard, how often it was started, and which rows killed whoever ran it.

rankmill:job:ID:claim:N        string holder of shard N, as "owner token"; expires
rankmill:job:ID:tries          hash   starts of each unfinished shard that did not end
rankmill:job:ID:trial          hash   rows that a suspect shard is scoring
rankmill:job:ID:deadly         hash   times that rows killed their worker, by "shard first stop"
rankmill:job:ID:faults         hash   times that a device failed in the middle of a shard
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import cast

import redis

from rankmill.ledger.client import JobKeys, broker_errors

# A claim that has vanished (a flushed Redis) is taken again; one of another holder is not.
_RENEW = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if redis.call('EXISTS', KEYS[2]) == 1 and redis.call('HGET', KEYS[3], ARGV[3]) ~= ARGV[4] then
  local now = redis.call('TIME')[1]
  redis.call('HSET', KEYS[3], ARGV[3], ARGV[4])
  redis.call('HSETNX', KEYS[2], 'started_at', now)
  redis.call('HSET', KEYS[2], 'progress_at', now)
end
return 1
"""

_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""


class Claims:
    """Each method raises BrokerUnavailable when Redis does not answer."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._renew = client.register_script(_RENEW)
        self._release = client.register_script(_RELEASE)

    def take(self, job_id: str, shard_index: int, owner: str, claim_s: float) -> str | None:
        """The token of a new claim, or None while somebody holds one."""
        token = f"{owner} {uuid.uuid4().hex}"
        key = JobKeys(job_id).claim(shard_index)
        with broker_errors():
            taken = self._redis.set(key, token, nx=True, px=int(claim_s * 1000))
        return token if taken else None

    def holder(self, job_id: str, shard_index: int) -> str | None:
        """The token of the claim that somebody holds."""
        with broker_errors():
            return cast(str | None, self._redis.get(JobKeys(job_id).claim(shard_index)))

    def held(self, job_id: str, shard_indices: Iterable[int]) -> set[int]:
        """Those of some shards that somebody holds a claim of."""
        indices = list(shard_indices)
        if not indices:
            return set()
        with broker_errors():
            holders = cast(
                list[str | None], self._redis.mget([JobKeys(job_id).claim(n) for n in indices])
            )
        return {n for n, holder in zip(indices, holders, strict=True) if holder is not None}

    def renew(
        self, job_id: str, shard_index: int, token: str, claim_s: float, progress: str
    ) -> bool:
        """Keep a claim alive and tell its progress; False when it is somebody else's by now."""
        job = JobKeys(job_id)
        with broker_errors():
            renewed = self._renew(
                keys=[job.claim(shard_index), job.hash, job.live],
                args=[token, int(claim_s * 1000), shard_index, progress],
            )
        return bool(renewed)

    def release(self, job_id: str, shard_index: int, token: str) -> None:
        """Give a claim back, or take it from a holder known to be dead; another's stays."""
        job = JobKeys(job_id)
        with broker_errors():
            self._release(keys=[job.claim(shard_index)], args=[token])
            self._redis.hdel(job.live, str(shard_index))

    def begin_try(self, job_id: str, shard_index: int) -> int:
        """Note a start of a shard; how many of its starts have not ended, this one included."""
        with broker_errors():
            return self._redis.hincrby(JobKeys(job_id).tries, str(shard_index), 1)

    def end_try(self, job_id: str, shard_index: int) -> None:
        """Take a start back whose process lived to see its end."""
        with broker_errors():
            self._redis.hincrby(JobKeys(job_id).tries, str(shard_index), -1)

    def note_fault(self, job_id: str, shard_index: int) -> None:
        """Note that a device failed in the middle of a shard, as either may be to blame."""
        with broker_errors():
            self._redis.hincrby(JobKeys(job_id).faults, str(shard_index), 1)

    def n_faults(self, job_id: str, shard_index: int) -> int:
        with broker_errors():
            found = cast(str | None, self._redis.hget(JobKeys(job_id).faults, str(shard_index)))
        return int(found or 0)

    def set_trial(self, job_id: str, shard_index: int, rows: tuple[int, int] | None) -> None:
        """Note the rows that are about to be scored, or that they were survived."""
        key = JobKeys(job_id).trial
        with broker_errors():
            if rows is None:
                self._redis.hdel(key, str(shard_index))
            else:
                self._redis.hset(key, str(shard_index), f"{rows[0]} {rows[1]}")

    def note_deadly(self, job_id: str, shard_index: int) -> dict[tuple[int, int], int]:
        """Count rows left on trial as deadly; how often each of the shard's ranges has killed."""
        job = JobKeys(job_id)
        with broker_errors():
            left = cast(str | None, self._redis.hget(job.trial, str(shard_index)))
            if left is not None:
                self._redis.hincrby(job.deadly, f"{shard_index} {left}", 1)
                self._redis.hdel(job.trial, str(shard_index))
            deaths = cast(dict[str, str], self._redis.hgetall(job.deadly))
        ranges = {tuple(map(int, name.split())): int(times) for name, times in deaths.items()}
        return {(first, stop): n for (of, first, stop), n in ranges.items() if of == shard_index}
