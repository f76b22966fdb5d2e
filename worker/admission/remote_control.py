"""Check a command of Celery's remote control, as Redis delivers it.

A worker answers what Flower asks, sends events and shuts down. It does not know the other commands
of Celery, such as those that add a queue, grow the pool or change a limit. Revoking is one of them:
reconcile would send a revoked shard again for ever. `rankmill cancel` ends a job.
"""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal, get_args

from celery.worker.control import Panel
from pydantic import Field, StringConstraints, ValidationError

from rankmill.errors import InputError
from worker.admission.envelope import Empty, Name, Strict, TaskId, read, what_is_wrong

Method = Literal[
    "ping",
    "stats",
    "active_queues",
    "registered",
    "active",
    "reserved",
    "scheduled",
    "revoked",
    "conf",
    "enable_events",
    "shutdown",
]

Key = Annotated[str, StringConstraints(pattern=r"^[0-9a-f-]{36}$")]
Clock = Annotated[int, Field(ge=0, lt=2**53)]


class CommandHeaders(Strict):
    """The headers of a command."""

    clock: Clock | None = None
    expires: Annotated[float, Field(ge=0, lt=2**53)] | None = None


class CommandEnvelope(Strict):
    """A command as Redis delivers it to all workers."""

    body: str
    headers: CommandHeaders
    properties: dict[str, Any]
    content_type: Literal["application/json"] = Field(alias="content-type")
    content_encoding: Literal["utf-8"] = Field(alias="content-encoding")


class Arguments(Strict):
    """The arguments of all commands."""

    safe: bool | None = None
    with_defaults: bool | None = None
    taskinfoitems: Empty | None = None


class ReplyTo(Strict):
    """The place of the reply, which must be a key for replies."""

    exchange: Literal["reply.celery.pidbox"]
    routing_key: Key


class Command(Strict):
    """A command; it lists its workers, since a pattern of names could take for ever to match."""

    method: Method
    arguments: Arguments | None = None
    destination: Annotated[list[Name], Field(max_length=10_000)] | None = None
    pattern: None = None
    matcher: None = None
    ticket: TaskId | None = None
    reply_to: ReplyTo | None = None


def check_command(content: bytes) -> None:
    """Check a message of remote control.

    Raises:
        InputError: it is too large, is not such a message, or its command is not allowed.
    """
    message = read(CommandEnvelope, content)
    try:
        body = base64.b64decode(message.body, validate=True)
    except ValueError:
        raise InputError("remote control: its body is not in base64") from None
    try:
        Command.model_validate_json(body)
    except ValidationError as error:
        raise InputError(f"remote control: {what_is_wrong(error)}") from None


def forget_other_commands() -> None:
    """Remove the commands of Celery that are not allowed from this process."""
    for registry in (Panel.data, Panel.meta):
        for name in set(registry) - set(get_args(Method)):
            del registry[name]
