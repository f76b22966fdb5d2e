"""A lock in Redis that needs no script, for a user of Redis that may not run any."""

from __future__ import annotations

from typing import no_type_check

import redis
from redis.exceptions import LockNotOwnedError
from redis.lock import Lock


class WatchedLock(Lock):
    """The lock of redis-py, released and extended in transactions.

    An extension sets the remaining time, as RedBeat expects; it is not added to it.
    """

    @no_type_check  # redis-py declares these for two kinds of clients
    def do_release(self, expected_token) -> None:
        """Delete the lock if this token holds it."""
        self._if_held(expected_token, lambda pipe: pipe.delete(self.name))

    @no_type_check
    def do_extend(self, additional_time, replace_ttl) -> bool:
        """Let the lock expire in `additional_time` seconds."""
        for_ms = int(additional_time * 1000)
        self._if_held(self.local.token, lambda pipe: pipe.pexpire(self.name, for_ms))
        return True

    @no_type_check
    def do_reacquire(self) -> bool:
        """Let the lock expire after its full time."""
        return self.do_extend(self.timeout, True)

    @no_type_check
    def _if_held(self, token, do) -> None:
        def act(pipe: redis.client.Pipeline) -> None:
            held_by = pipe.get(self.name)
            pipe.multi()
            if held_by is None or pipe.get_encoder().encode(held_by) != token:
                raise LockNotOwnedError(
                    f"{self.name} is held by another process now", lock_name=self.name
                )
            do(pipe)

        self.redis.transaction(act, self.name)
