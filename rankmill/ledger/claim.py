"""A right to do a job's work that expires, renewed while its holder lives, checked at the end.

The work is a shard, by its number, or the job's PREPARATION or FINALIZATION, or what a schedule
does with it: its submission, FIRING, and its COMPARISON with the run before.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from types import TracebackType

from rankmill.errors import BrokerUnavailable, ClaimLost
from rankmill.ledger.claims import Claims
from rankmill.process import Process, pid_namespace

PREPARATION = -1
FIRING = -2
COMPARISON = -3
FINALIZATION = -4


class Claim:
    """Held in a `with` block; a thread renews it.

    A holder that was frozen or cut off from Redis for longer than the claim lasts must assume that
    somebody else has it: `check` then raises, by the holder's own clock.
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
        self._taken = False
        self._progress = "0 0"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="claim", daemon=True)

    @classmethod
    def take(cls, claims: Claims, job_id: str, shard_index: int, claim_s: float) -> Claim | None:
        """The claim of a shard, or None while another that may be alive holds it."""
        token = claims.take(job_id, shard_index, _me(), claim_s)
        holder = None if token else claims.holder(job_id, shard_index)
        if holder is not None and _is_dead(holder.partition(" ")[0]):
            claims.release(job_id, shard_index, holder)
            token = claims.take(job_id, shard_index, _me(), claim_s)
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
        """Told to Redis with the next renewal."""
        self._progress = f"{n_pairs} {n_tokens}"

    def check(self) -> None:
        """Raise ClaimLost unless this holder still has the right to publish."""
        if self._taken or time.monotonic() > self._valid_until:
            raise ClaimLost(
                f"job {self._job_id}, shard {self._shard_index}: the claim ran out before the "
                "result was written; another worker has it"
            )

    def _renew(self) -> None:
        # Often enough for a live progress bar, and to outlive two lost attempts.
        while not self._stop.wait(min(1.0, self._claim_s / 6)):
            asked_at = time.monotonic()
            if asked_at > self._valid_until:  # frozen meanwhile: whoever had it since may be done
                self._taken = True
                return
            try:
                mine = self._claims.renew(
                    self._job_id,
                    self._shard_index,
                    self._token,
                    self._claim_s,
                    self._progress,
                )
            except BrokerUnavailable:
                continue
            if not mine:
                self._taken = True
                return
            self._valid_until = asked_at + self._claim_s


def _me() -> str:
    """This process among all: its machine, the namespace of its process ids, its id."""
    return f"{socket.gethostname()}/{pid_namespace()}:{os.getpid()}"


def _is_dead(owner: str) -> bool:
    """Whether a claim's holder was a process beside this one that is gone."""
    place, _, pid = owner.rpartition(":")
    return place == _me().rpartition(":")[0] and not Process(int(pid)).is_alive
