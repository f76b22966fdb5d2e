"""An expiring right to run a shard, renewed while its holder lives, checked before it publishes."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from rankmill.claims import Claims
from rankmill.errors import BrokerUnavailable, ClaimLost
from rankmill.spec import ShardSpec


class Claim:
    """Held in a `with` block; a thread renews it.

    A holder that was frozen or cut off from Redis for longer than the claim lasts must assume that
    somebody else has it: `check` then raises, by the holder's own clock.
    """

    def __init__(self, claims: Claims, shard: ShardSpec, token: str, claim_s: float) -> None:
        self._claims = claims
        self._shard = shard
        self._token = token
        self._claim_s = claim_s
        self._valid_until = time.monotonic() + claim_s
        self._taken = False
        self._progress = "0 0"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="claim", daemon=True)

    @classmethod
    def take(cls, claims: Claims, shard: ShardSpec, owner: str, claim_s: float) -> Claim | None:
        """The claim of a shard, or None while another holds it."""
        token = claims.take(shard.job_id, shard.shard_index, owner, claim_s)
        return None if token is None else cls(claims, shard, token, claim_s)

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
            self._claims.release(self._shard.job_id, self._shard.shard_index, self._token)
        except BrokerUnavailable:
            pass  # it expires by itself

    def progress(self, n_pairs: int, n_tokens: int) -> None:
        """Told to Redis with the next renewal."""
        self._progress = f"{n_pairs} {n_tokens}"

    def check(self) -> None:
        """Raise ClaimLost unless this holder still has the right to publish."""
        if self._taken or time.monotonic() > self._valid_until:
            raise ClaimLost(
                f"shard {self._shard.shard_index} of job {self._shard.job_id}: the claim ran out "
                "before the part was written; another worker has it"
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
                    self._shard.job_id,
                    self._shard.shard_index,
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
