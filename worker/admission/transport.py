"""kombu's channel, with a check of all that it reads from Redis, as raw bytes.

A message that fails its check is dropped with a line before kombu parses it. kombu and Celery crash
on a message of an unexpected shape, one worker after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from queue import Empty
from typing import Any, cast

from kombu.transport import redis as transport
from redis.exceptions import RedisError

from rankmill.errors import InputError
from rankmill.logs import get_logger
from rankmill.shown import escaped
from worker.admission.message import check_message, check_unacked
from worker.admission.remote_control import check_command

log = get_logger(__name__)

_SHOWN = 300
_N_BINDING_FIELDS = 3  # routing key, pattern, queue


def check_all() -> None:
    """Make every connection of this process to its broker check what it reads."""
    for kind in (transport.Transport, transport.SentinelTransport):
        if not issubclass(kind.Channel, CheckedChannel):
            checked = type("Channel", (CheckedChannel, kind.Channel), {})
            kind.Channel = cast(type[transport.Channel], checked)


def log_refused(error: Exception) -> None:
    """Log that a message was dropped, in one line."""
    what = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
    log.error(f"message refused: {escaped(what)}"[:_SHOWN])


class CheckedQoS(transport.QoS):
    """The messages that are not acknowledged yet, with those of dead workers."""

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        """Put a message back into its queue; drop an entry that fails the check."""
        with self.channel.conn_or_acquire(client) as connected:
            entry = connected.hget(self.unacked_key, tag)
            try:
                if entry is not None:
                    check_unacked(entry)
            except InputError as error:
                log_refused(error)
                self._remove_from_indices(tag).execute()
                return
            super().restore_by_tag(tag, connected, leftmost)


class CheckedChannel(transport.Channel):
    """A channel that hands over only what passes the checks."""

    QoS = CheckedQoS

    def _create_client(self, asynchronous: bool = False) -> Any:
        """Return a client whose answers are checked when they are messages of a queue."""
        client = super()._create_client(asynchronous)
        client.parse_response = partial(_checked_answer, client.parse_response)
        return client

    def _handle_message(self, client: Any, r: Any) -> Any:
        """Return a message of remote control, checked."""
        payload = super()._handle_message(client, r)
        if payload["data"] and payload["type"] in (b"message", b"pmessage"):
            check_command(payload["data"])
        return payload

    def _brpop_read(self, **options: Any) -> Any:
        return self._dropping(super()._brpop_read, **options)

    def _receive(self) -> Any:
        """Receive until a message passes or none is left: a dropped one must not delay the next."""
        received = self._dropping(super()._receive)
        while received is None and self.subclient.connection.can_read(timeout=0):
            received = self._dropping(super()._receive)
        return received

    def get_table(self, exchange: str) -> list[Any]:
        """Return the bindings of an exchange, without malformed ones."""
        return [each for each in super().get_table(exchange) if len(each) == _N_BINDING_FIELDS]

    def _dropping(self, read: Callable[..., Any], **options: Any) -> Any:
        """Read, and log an error of what was read; errors of the connection are raised."""
        # kombu counts KeyError among the errors of a lost connection.
        lost = tuple(each for each in self.connection_errors if each is not KeyError)
        try:
            return read(**options)
        except (*lost, RedisError, Empty):
            raise
        except Exception as error:
            log_refused(error)
            return None


def _checked_answer(
    parse: Callable[..., Any], connection: Any, command: str, **options: Any
) -> Any:
    answer = parse(connection, command, **options)
    if command == "BRPOP" and answer:
        check_message(answer[1])
    return answer
