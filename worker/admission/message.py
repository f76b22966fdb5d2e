"""Check a message of a queue, as it is in Redis, before anything of it is unpacked."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from rankmill.broker import FINALIZE, NOTIFY, PREPARE, REPORT, SCORE_SHARD, SUBMIT, TICK, work_of
from rankmill.contract.base import Contract, parse
from rankmill.contract.job import JobMessage, SubmitMessage
from rankmill.contract.plan import ShardMessage
from rankmill.errors import InputError, ReleaseTooOld
from rankmill.notify import NotifyMessage
from worker.admission.envelope import Body, Envelope, Unacked, read, what_is_wrong

_MAX_DEPTH = 32


class NoArguments(Contract):
    """The arguments of `rankmill.tick`."""


ARGUMENTS: Mapping[str, type[Contract]] = {
    SUBMIT: SubmitMessage,
    SCORE_SHARD: ShardMessage,
    PREPARE: JobMessage,
    FINALIZE: JobMessage,
    REPORT: JobMessage,
    NOTIFY: NotifyMessage,
    TICK: NoArguments,
}


def check_message(content: bytes) -> None:
    """Check a message as Redis holds it in a queue.

    Raises:
        InputError: it is too large, is not as `Envelope` describes, is for an unknown task, or has
            wrong arguments.
    """
    check_envelope(read(Envelope, content))


def check_unacked(content: bytes) -> None:
    """Check an unacknowledged message as Redis holds it: message, exchange, queue.

    Raises:
        InputError: it is not such an entry, or its message fails the check.
    """
    check_envelope(read(Unacked, content).root[0])


def check_envelope(message: Envelope) -> None:
    """Check a message's task, body and arguments, which the schema of an envelope leaves open.

    Raises:
        InputError: one of them is wrong.
    """
    headers = message.headers
    name, contract = headers.task, ARGUMENTS.get(headers.task)
    if contract is None:
        raise InputError(f"there is no task {name}")
    if message.content_type != "application/json":
        raise InputError(f"{name}: {message.content_type} is not accepted, only JSON")
    if message.content_encoding.lower() != "utf-8":
        raise InputError(f"{name}: its encoding is {message.content_encoding}, not utf-8")
    if headers.expires is not None and work_of(headers.id):
        # Celery would remember the id as revoked and drop the work when it is sent again.
        raise InputError(f"{name}: {headers.id} is the work of a job, which does not expire")
    arguments = _named_arguments(name, message.body)
    with suppress(ReleaseTooOld):  # its task sends it back for another worker
        parse(contract, arguments, name)


def _named_arguments(name: str, body: str) -> dict[str, Any]:
    """Return the named arguments of a body; it may hold nothing else."""
    try:
        arguments, named, embedded = json.loads(base64.b64decode(body, validate=True))
        parts = {"arguments": arguments, "named": named, "embedded": embedded}
        checked = Body.model_validate(parts)
    except ValidationError as error:
        wrong = what_is_wrong(error)
        raise InputError(f"{name}: its body is not JSON of [[], {{…}}, {{…}}]: {wrong}") from None
    except (ValueError, TypeError, RecursionError):  # of base64 or of JSON
        raise InputError(f"{name}: its body is not JSON of [[], {{…}}, {{…}}]") from None
    if checked.arguments:
        raise InputError(f"{name}: its arguments go by name (kwargs)")
    _check_plain(checked.named, name)
    return checked.named


def _check_plain(named: dict[str, Any], name: str) -> None:
    """Check that arguments are not nested deeply and hold no object that kombu would convert.

    Raises:
        InputError: they are, or do.
    """
    level: list[Any] = [named]
    for _ in range(_MAX_DEPTH):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                if "__type__" in each:
                    raise InputError(f"{name}: its arguments hold an object with __type__")
                inner += each.values()
            elif isinstance(each, list):
                inner += each
        level = inner
    if level:
        raise InputError(f"{name}: its arguments are nested more than {_MAX_DEPTH} deep")
