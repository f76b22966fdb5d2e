"""What is no message of ours is refused with a line in the log; nothing sent can stop a worker.

Celery itself dies of a message whose shape it does not expect, and of each worker in turn that it
comes to.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty
from typing import Any

from celery.worker.consumer import Consumer
from kombu.exceptions import ContentDisallowed
from redis.exceptions import RedisError

from rankmill.broker import FINALIZE, NOTIFY, PREPARE, REPORT, SCORE_SHARD, SUBMIT
from rankmill.contract.base import Contract, parse
from rankmill.contract.job import JobMessage, SubmitMessage
from rankmill.contract.plan import ShardMessage
from rankmill.errors import InputError
from rankmill.logs import get_logger
from rankmill.notify import Event

log = get_logger(__name__)

_MAX_BYTES = 2**20
_SHOWN = 300


class NotifyMessage(Contract):
    """The arguments of `rankmill.notify`."""

    event: Event


_ARGUMENTS: dict[str, type[Contract]] = {
    SUBMIT: SubmitMessage,
    SCORE_SHARD: ShardMessage,
    PREPARE: JobMessage,
    FINALIZE: JobMessage,
    REPORT: JobMessage,
    NOTIFY: NotifyMessage,
}

Receive = Callable[[Any], None]


class CheckingConsumer(Consumer):  # type: ignore[misc]  # Celery has no types
    """Celery's, with a check before whatever it does with a message."""

    def create_task_handler(self, *arguments: Any, **options: Any) -> Receive:
        handle = super().create_task_handler(*arguments, **options)
        # kombu counts KeyError among what a lost connection raises.
        passing = tuple(each for each in self.connection_errors if each is not KeyError)
        for channel in self.connection.transport.channels:
            for kind, read in channel.handlers.items():
                channel.handlers[kind] = _reading(read, passing)

        def receive(message: Any) -> None:
            try:
                check_message(message, self.app.tasks)
                handle(message)
            except passing:
                raise
            except Exception as error:
                self.on_invalid_task(None, message, error)

        return receive

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        _tell(exc)
        message.reject_log_error(log, self.connection_errors)


def _reading(read: Callable[..., Any], passing: tuple[type[Exception], ...]) -> Callable[..., Any]:
    """Reads from Redis, but drops what is not even a message that could be rejected."""

    known: tuple[type[Exception], ...] = (*passing, RedisError, Empty)

    def read_message(*arguments: Any, **options: Any) -> Any:
        try:
            return read(*arguments, **options)
        except known:
            raise
        except Exception as error:
            _tell(error)
            return None

    return read_message


def check_message(message: Any, tasks: Any) -> None:
    """
    Raises:
        InputError: not JSON, too large, for no task of ours, or with arguments that it cannot have.
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
        parse(_ARGUMENTS[name], named, name)


def _tell(error: Exception) -> None:
    what = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
    log.error(f"message refused: {what}".replace("\n", " ")[:_SHOWN])
