"""Reject malformed messages before Celery sees them, with a line in the log.

Celery itself crashes on a message of an unexpected shape, one worker after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from queue import Empty
from typing import Any

from kombu.exceptions import ContentDisallowed
from redis.exceptions import RedisError

from rankmill.broker import FINALIZE, NOTIFY, PREPARE, REPORT, SCORE_SHARD, SUBMIT
from rankmill.contract.base import Contract, parse
from rankmill.contract.job import JobMessage, SubmitMessage
from rankmill.contract.plan import ShardMessage
from rankmill.errors import InputError, ReleaseTooOld
from rankmill.logs import get_logger
from rankmill.notify import NotifyMessage
from worker.consumer import WaitingConsumer

log = get_logger(__name__)

_MAX_BYTES = 2**20
_SHOWN = 300


_ARGUMENTS: dict[str, type[Contract]] = {
    SUBMIT: SubmitMessage,
    SCORE_SHARD: ShardMessage,
    PREPARE: JobMessage,
    FINALIZE: JobMessage,
    REPORT: JobMessage,
    NOTIFY: NotifyMessage,
}

Receive = Callable[[Any], None]


class CheckingConsumer(WaitingConsumer):
    """Celery's consumer, with a check of each message."""

    def create_task_handler(self, *arguments: Any, **options: Any) -> Receive:
        """Return Celery's handler, preceded by the check; errors in it reject the message."""
        handle = super().create_task_handler(*arguments, **options)
        # kombu counts KeyError among the errors of a lost connection.
        connection_errors = tuple(each for each in self.connection_errors if each is not KeyError)
        known = (*connection_errors, RedisError, Empty)

        def dropping_garbage(read: Callable[..., Any]) -> Callable[..., Any]:
            """Wrap a read from Redis so that it drops what has not even an envelope to reject."""

            def read_message(*arguments: Any, **options: Any) -> Any:
                try:
                    return read(*arguments, **options)
                except known:
                    raise
                except Exception as error:
                    _log_refused(error)
                    return None

            return read_message

        for channel in self.connection.transport.channels:
            for kind, read in channel.handlers.items():
                channel.handlers[kind] = dropping_garbage(read)

        def receive(message: Any) -> None:
            try:
                check_message(message, self.app.tasks)
                handle(message)
            except connection_errors:
                raise
            except Exception as error:
                self.on_invalid_task(None, message, error)

        return receive

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Log and reject a message."""
        _log_refused(exc)
        message.reject_log_error(log, self.connection_errors)


def check_message(message: Any, tasks: Any) -> None:
    """Check a message before its task runs.

    Raises:
        InputError: it is not JSON, too large, for an unknown task, or has wrong arguments.
    """
    headers = message.headers
    name = headers.get("task") if isinstance(headers, dict) else None
    if not isinstance(name, str) or not isinstance(headers.get("id"), str):
        raise InputError("it names no task and id")
    if name not in tasks:
        raise InputError(f"there is no task {name}")
    if len(message.body or "") > _MAX_BYTES:
        raise InputError(f"{name}: it is larger than {_MAX_BYTES:,} bytes")
    try:
        arguments, named, embedded = message.decode()
    except ContentDisallowed as error:
        raise InputError(f"{name}: {message.content_type} is not accepted, only JSON") from error
    except Exception as error:
        raise InputError(f"{name}: its body is not JSON of [[], {{…}}, {{…}}]") from error
    if not isinstance(named, dict) or not isinstance(embedded, dict | None):
        raise InputError(f"{name}: its body is not JSON of [[], {{…}}, {{…}}]")
    if name in _ARGUMENTS:
        if arguments != []:
            raise InputError(f"{name}: its arguments go by name (kwargs)")
        with suppress(ReleaseTooOld):  # its task sends it back
            parse(_ARGUMENTS[name], named, name)


def _log_refused(error: Exception) -> None:
    what = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
    log.error(f"message refused: {what}".replace("\n", " ")[:_SHOWN])
