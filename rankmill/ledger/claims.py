"""Claims: expiring rights to do a piece of a job's work, and counts of the workers that died of it.

The piece is a shard, by its index, or one of the constants below.

    rankmill:job:ID:claim:N        string holder of shard N, as "owner token"; expires
    rankmill:job:ID:tries          hash   starts of each unfinished shard that did not end
    rankmill:job:ID:trial          hash   rows that a suspect shard is scoring
    rankmill:job:ID:deadly         hash   times that rows killed their worker, by "shard first stop"
    rankmill:job:ID:faults         hash   times that a device failed in the middle of a shard
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import cast

import redis

from rankmill.errors import BrokerUnavailable, ClaimLost
from rankmill.host import machine_id
from rankmill.ledger.client import JobKeys, broker_errors
from rankmill.ledger.scripts import RENEW
from rankmill.process import Process, pid_namespace

PREPARATION = -1
FIRING = -2  # a schedule's submission of the job
COMPARISON = -3  # a schedule's comparison of the job with the run before
FINALIZATION = -4

# Steps of a schedule. Their claims have no progress to note.
_WITHOUT_PROGRESS = frozenset({FIRING, COMPARISON})


class Claims:
    """The claims of all jobs in Redis.

    Each method raises BrokerUnavailable when Redis does not answer.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._renew = client.register_script(RENEW)

    def take(self, job_id: str, shard_index: int, owner: str, claim_s: float) -> str | None:
        """Take a claim and return its token, or None while another holds it."""
        token = f"{owner} {uuid.uuid4().hex}"
        key = JobKeys(job_id).claim(shard_index)
        with broker_errors():
            taken = self._redis.set(key, token, nx=True, px=int(claim_s * 1000))
        return token if taken else None

    def holder(self, job_id: str, shard_index: int) -> str | None:
        """Return the token of the claim, or None if nobody holds it."""
        with broker_errors():
            return cast(str | None, self._redis.get(JobKeys(job_id).claim(shard_index)))

    def held(self, job_id: str, shard_indices: Iterable[int]) -> set[int]:
        """Return those of the shards whose claim is held."""
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
        """Extend a claim and note its progress; return False if another has taken it."""
        job = JobKeys(job_id)
        if shard_index in _WITHOUT_PROGRESS:
            return self._extend(job.claim(shard_index), token, int(claim_s * 1000))
        with broker_errors():
            renewed = self._renew(
                keys=[job.claim(shard_index), job.hash, job.live],
                args=[token, int(claim_s * 1000), shard_index, progress],
            )
        return bool(renewed)

    def _extend(self, key: str, token: str, for_ms: int) -> bool:
        """Extend a claim in a transaction, since a producer may not run scripts."""
        is_ours = False

        def extend(pipe: redis.client.Pipeline) -> None:
            nonlocal is_ours
            is_ours = pipe.get(key) in (None, token)
            pipe.multi()
            if is_ours:
                pipe.set(key, token, px=for_ms)

        with broker_errors():
            self._redis.transaction(extend, key)
        return is_ours

    def release(self, job_id: str, shard_index: int, token: str) -> None:
        """Release the claim with this token, one's own or a dead holder's; others stay."""
        job = JobKeys(job_id)
        key = job.claim(shard_index)

        def release(pipe: redis.client.Pipeline) -> None:
            is_ours = pipe.get(key) == token
            pipe.multi()
            if is_ours:
                pipe.delete(key)
            pipe.hdel(job.live, str(shard_index))

        with broker_errors():  # a transaction, since a producer may not run scripts
            self._redis.transaction(release, key)

    @contextmanager
    def counted_try(self, job_id: str, shard_index: int) -> Iterator[int]:
        """Count a start until the block ends, so that only the starts that died stay counted.

        Yields the number of starts, this one included.
        """
        key, shard = JobKeys(job_id).tries, str(shard_index)
        with broker_errors():
            n_tries = self._redis.hincrby(key, shard, 1)
        try:
            yield n_tries
        finally:
            try:
                with broker_errors():
                    self._redis.hincrby(key, shard, -1)
            except BrokerUnavailable:
                pass  # one death too many is counted, which costs a little care

    def note_fault(self, job_id: str, shard_index: int) -> None:
        """Count a device failure in the middle of a shard; either may be the cause."""
        with broker_errors():
            self._redis.hincrby(JobKeys(job_id).faults, str(shard_index), 1)

    def n_faults(self, job_id: str, shard_index: int) -> int:
        """Return how often a device failed in the middle of a shard."""
        with broker_errors():
            count = cast(str | None, self._redis.hget(JobKeys(job_id).faults, str(shard_index)))
        return int(count or 0)

    def set_trial(self, job_id: str, shard_index: int, rows: tuple[int, int] | None) -> None:
        """Note the rows (first, stop) that are about to be scored; None after they are."""
        key = JobKeys(job_id).trial
        with broker_errors():
            if rows is None:
                self._redis.hdel(key, str(shard_index))
            else:
                self._redis.hset(key, str(shard_index), f"{rows[0]} {rows[1]}")

    def note_deadly(self, job_id: str, shard_index: int) -> dict[tuple[int, int], int]:
        """Count rows left on trial as deadly; return the deaths by range of the shard's rows."""
        job = JobKeys(job_id)
        with broker_errors():
            left = cast(str | None, self._redis.hget(job.trial, str(shard_index)))
            if left is not None:
                self._redis.hincrby(job.deadly, f"{shard_index} {left}", 1)
                self._redis.hdel(job.trial, str(shard_index))
            deaths = cast(dict[str, str], self._redis.hgetall(job.deadly))
        ranges = {tuple(map(int, name.split())): int(times) for name, times in deaths.items()}
        return {(first, stop): n for (of, first, stop), n in ranges.items() if of == shard_index}


class Claim:
    """A claim that a thread renews during a `with` block.

    A holder that was frozen, or cut off from Redis, for longer than the claim lasts must assume
    that another has it. `check` then raises, by the holder's own clock.
    """

    def __init__(
        self, claims: Claims, job_id: str, shard_index: int, token: str, claim_s: float
    ) -> None:
        self._claims = claims
        self._job_id = job_id
        self._shard_index = shard_index
        self._token = token
        self._claim_s = claim_s
        self._valid_until = time.monotonic() + claim_s
        self._is_lost = False
        self._progress = "0 0"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="claim", daemon=True)

    @classmethod
    def take(cls, claims: Claims, job_id: str, shard_index: int, claim_s: float) -> Claim | None:
        """Take the claim of a shard; return None while another that may be alive holds it."""
        # Two machines may have the same name, and the first namespace has the same id on all.
        place = f"{socket.gethostname()}/{machine_id()}/{pid_namespace()}"
        owner = f"{place}:{os.getpid()}"
        token = claims.take(job_id, shard_index, owner, claim_s)
        holder = None if token else claims.holder(job_id, shard_index)
        if holder is not None:
            # A process id means something only in the same namespace of the same machine.
            other_place, _, pid = holder.partition(" ")[0].rpartition(":")
            if other_place == place and not Process(int(pid)).is_alive:
                claims.release(job_id, shard_index, holder)
                token = claims.take(job_id, shard_index, owner, claim_s)
        return None if token is None else cls(claims, job_id, shard_index, token, claim_s)

    def __enter__(self) -> Claim:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        try:
            self._claims.release(self._job_id, self._shard_index, self._token)
        except BrokerUnavailable:
            pass  # it expires by itself

    def progress(self, n_pairs: int, n_tokens: int) -> None:
        """Note the progress, which the next renewal sends to Redis."""
        self._progress = f"{n_pairs} {n_tokens}"

    def check(self) -> None:
        """Raise ClaimLost unless this holder still has the right to publish."""
        if self._is_lost or time.monotonic() > self._valid_until:
            raise ClaimLost(
                f"job {self._job_id}, shard {self._shard_index}: the claim ran out before the "
                "result was written; another worker has it"
            )

    def _keep(self) -> None:
        """Renew the claim until the block ends or the claim is lost."""
        # Often enough for a live progress bar, and to survive two failed renewals.
        while not self._stop.wait(min(1.0, self._claim_s / 6)):
            asked_at = time.monotonic()
            if asked_at > self._valid_until:  # frozen meanwhile: another may have had it and ended
                self._is_lost = True
                return
            try:
                is_ours = self._claims.renew(
                    self._job_id, self._shard_index, self._token, self._claim_s, self._progress
                )
            except BrokerUnavailable:
                continue
            if not is_ours:
                self._is_lost = True
                return
            self._valid_until = asked_at + self._claim_s
