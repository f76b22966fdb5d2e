"""Keep the heartbeats of workers: which are alive, which died, and which queues they take from.

    rankmill:workers               zset   scoring worker by time last seen
    rankmill:takers:QUEUE          zset   worker that takes from the queue, by time last seen
    rankmill:returning             string set while workers return after an outage; expires

A worker that was stopped is removed. One that died stays, and counts as lost for an hour.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import cast

import redis

from rankmill.ledger.client import broker_errors
from rankmill.ledger.scripts import SEEN

WORKERS = "rankmill:workers"
# A worker lives if its heartbeat is not older.
SEEN_S = 60.0
_TAKERS = "rankmill:takers:"
_RETURNING = "rankmill:returning"
_LOST_S = 3600.0


class Workers:
    """The heartbeats of all workers in Redis.

    Each method raises BrokerUnavailable when Redis does not answer.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._seen = client.register_script(SEEN)
        self._have_sent: set[str] = set()

    def seen(self, worker: str, queues: Iterable[str], *, scores: bool = True) -> None:
        """Note a worker's heartbeat and the queues that it takes work from."""
        keys = [_TAKERS + queue for queue in queues] + ([WORKERS] if scores else [])
        has_sent = int(worker in self._have_sent)
        with broker_errors():
            self._seen(keys=[*keys, _RETURNING], args=[worker, has_sent, int(SEEN_S)])
        self._have_sent.add(worker)

    def left(self, worker: str, queues: Iterable[str]) -> None:
        """Remove a worker that was stopped, so that it does not count as lost."""
        with broker_errors(), self._redis.pipeline(transaction=False) as pipe:
            for key in (WORKERS, *(_TAKERS + queue for queue in queues)):
                pipe.zrem(key, worker)
            pipe.execute()

    def forget_unseen(self, queues: Iterable[str]) -> None:
        """Remove the workers without a heartbeat in the last minute, scoring ones after an hour."""
        now = self._now()
        kept_s = {WORKERS: _LOST_S} | {_TAKERS + each: SEEN_S for each in queues}
        with broker_errors(), self._redis.pipeline(transaction=False) as pipe:
            for key, for_s in kept_s.items():
                pipe.zremrangebyscore(key, 0, now - for_s)
                pipe.expire(key, int(2 * for_s))
            pipe.execute()

    def takers(self, queue: str) -> set[str]:
        """Return the live workers of a queue, by their ids."""
        since = self._now() - SEEN_S
        with broker_errors(_TAKERS + queue):
            found = self._redis.zrangebyscore(_TAKERS + queue, since, "+inf")
        return set(cast(list[str], found))

    def are_returning(self, queue: str) -> bool:
        """Return whether live workers may be missing, since Redis was away or has lost them."""
        since, takers = self._now() - SEEN_S, _TAKERS + queue
        with broker_errors(takers), self._redis.pipeline(transaction=False) as pipe:
            pipe.exists(_RETURNING)
            pipe.zcard(takers)
            pipe.zcount(takers, since, "+inf")
            are_known_to, n_noted, n_live = cast(list[int], pipe.execute())
        return bool(are_known_to) or n_noted > n_live == 0

    def n_takers(self, queues: Collection[str]) -> dict[str, int]:
        """Return the number of live workers of each queue, in one round trip."""
        if not queues:
            return {}
        since = self._now() - SEEN_S
        with broker_errors(_TAKERS + "*"), self._redis.pipeline(transaction=False) as pipe:
            for queue in queues:
                pipe.zcount(_TAKERS + queue, since, "+inf")
            return dict(zip(queues, pipe.execute(), strict=True))

    def n_live(self) -> int:
        """Return the number of live scoring workers."""
        since = self._now() - SEEN_S
        with broker_errors(WORKERS):
            return self._redis.zcount(WORKERS, since, "+inf")

    def n_lost(self) -> int:
        """Return the number of scoring workers that died within the last hour."""
        now = self._now()
        with broker_errors(WORKERS):
            return self._redis.zcount(WORKERS, now - _LOST_S, f"({now - SEEN_S}")

    def _now(self) -> float:
        with broker_errors():
            seconds, microseconds = self._redis.time()
        return float(seconds) + float(microseconds) / 1e6
