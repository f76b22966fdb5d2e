"""Celery's consumer, which waits for a Redis that is away or refuses commands, and goes on."""

from __future__ import annotations

import time
import warnings
from typing import Any

from celery.exceptions import CPendingDeprecationWarning
from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown
from redis.exceptions import RedisError

from rankmill.broker import lists_of, queues_of
from rankmill.errors import BrokerUnavailable
from rankmill.ledger.jobs import ledger
from rankmill.ledger.server import WORKERS_KEYS, check_types
from rankmill.logs import get_logger

log = get_logger(__name__)

_PAUSE_S = 1.0


class WaitingConsumer(Consumer):
    """Celery's consumer, which handles each error of Redis as a lost connection."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Else one refused acknowledgement would end the worker.
        self.connection_errors += self.channel_errors
        self._unsaved: list[tuple[str, Any]] = []

    def connect(self) -> Any:
        """Return the connection, without its options in the facts that Flower shows.

        The options of sentinels hold their password.
        """
        connection = super().connect()
        info = connection.info
        connection.info = lambda: {**info(), "transport_options": {}}
        return connection

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Close the connection, then pause: Celery itself tries again at once."""
        _name_wrong_keys(exc)
        with warnings.catch_warnings():  # Celery has one at each loss of the connection
            warnings.simplefilter("ignore", CPendingDeprecationWarning)
            super().on_connection_error_after_connected(exc)
        _pause()

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Log the error as this project does, and pause."""
        _name_wrong_keys(exc)
        log.warning("worker waits for Redis", error=exc)
        _pause()

    def create_task_handler(self, *arguments: Any, **options: Any) -> Any:
        """Put back the messages that Redis did not save, then return Celery's handler.

        A message leaves its queue before Redis saves it as unacknowledged. If Redis refuses to
        save it, as a full one does, this process has the only copy.
        """
        while self._unsaved:
            queue, message = self._unsaved[-1]
            self.connection.default_channel._put(queue, message)
            self._unsaved.pop()
        transport = self.connection.transport
        deliver = transport._deliver

        def deliver_or_keep(message: Any, queue: str) -> None:
            try:
                deliver(message, queue)
            except RedisError:
                tag = message["properties"]["delivery_tag"]
                is_saved = any(tag in channel.qos._delivered for channel in transport.channels)
                if queue in self.app.amqp.queues.consume_from and not is_saved:
                    self._unsaved.append((queue, message))
                raise

        transport._deliver = deliver_or_keep
        return super().create_task_handler(*arguments, **options)


def _name_wrong_keys(error: Exception) -> None:
    """Log the keys of another type, which Redis's error does not name."""
    if "WRONGTYPE" in str(error):
        try:
            lists = dict.fromkeys(lists_of(queues_of("all")), "LLEN")
            check_types(ledger().redis, lists | WORKERS_KEYS)
        except BrokerUnavailable as named:
            log.warning("worker waits for Redis", error=named)


def _pause() -> None:
    """Wait, but not for longer than it takes to stop the worker."""
    until = time.monotonic() + _PAUSE_S
    while time.monotonic() < until:
        maybe_shutdown()
        time.sleep(0.1)
