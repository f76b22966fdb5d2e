"""Share one connection to Redis among all commands of a process; others wait for messages.

Celery's transport opens two for each of its channels. A worker would have ten connections.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, cast

import redis
from kombu.transport import redis as transport

from rankmill.broker_url import is_sentinel
from rankmill.ledger.client import shared_client
from rankmill.settings import settings

# Redis answers an empty wait for messages after this time, and the worker asks again.
_WAIT_S = 5


def use_shared_connections() -> None:
    """Make Celery use the channels of this module, in all of this process."""
    for kind in (transport.Transport, transport.SentinelTransport):
        if not issubclass(kind.Channel, SharingChannel):
            shared = type("Channel", (SharingChannel, kind.Channel), {})
            kind.Channel = cast(type[transport.Channel], shared)
            kind.brpop_timeout = _WAIT_S


class SharingChannel(transport.Channel):
    """A channel that sends its commands over the connection of the process's ledger."""

    _waiter: tuple[Any, int] | None = None
    _is_pool_shared = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.async_pool.disconnect()  # it has sent a PING, and most channels wait for nothing

    def close(self) -> None:
        """Close the channel at once, without losing a message that is on its way."""
        if self._in_poll and self._waiter is not None:
            with suppress(redis.RedisError, OSError):  # else it closes when the wait ends
                self._create_client().client_unblock(self._waiter[1])
        super().close()

    def _get_pool(self, asynchronous: bool = False) -> redis.ConnectionPool:
        if not asynchronous:
            shared = shared_client(settings()).connection_pool
            if is_sentinel(settings().broker_url) or (
                _place(shared.connection_kwargs) == _place(self._connparams())
            ):
                self._is_pool_shared = True
                return shared
        pool: redis.ConnectionPool = super()._get_pool(asynchronous)
        return pool

    def _disconnect_pools(self) -> None:
        if self._is_pool_shared:
            self._pool = None  # others use it, also where the settings have changed since
            self._is_pool_shared = False
        super()._disconnect_pools()

    def _brpop_start(self, timeout: float | None = None) -> None:
        connection = self.client.connection
        if self._waiter is None or self._waiter[0] is not connection._sock:
            connection.send_command("CLIENT", "ID")
            self._waiter = connection._sock, int(connection.read_response())
        super()._brpop_start(timeout)


def _place(options: dict[str, Any]) -> tuple[object, ...]:
    """Return the address and the database in a pool's options."""
    port = None if options.get("path") else int(options.get("port") or 6379)
    return options.get("path"), options.get("host"), port, int(options.get("db") or 0)
