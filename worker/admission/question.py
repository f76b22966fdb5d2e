"""Check a question or an order to workers (Celery's remote control), as Redis delivers it.

A worker answers what Flower asks, sends events, and shuts down. All else is neither answered nor
known to the worker: to read from another queue, to grow, to change limits of a task. A task that
is revoked by its id would be sent again and dropped, for ever; `rankmill cancel` ends a job.
"""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal, get_args

from celery.worker.control import Panel
from pydantic import Field, StringConstraints, ValidationError

from rankmill.errors import InputError
from worker.admission.envelope import Empty, Name, Strict, TaskId, read, what_is_wrong

Command = Literal[
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


class QuestionHeaders(Strict):
    """The headers of a question."""

    clock: Clock | None = None
    expires: Annotated[float, Field(ge=0, lt=2**53)] | None = None


class QuestionEnvelope(Strict):
    """A question as Redis delivers it to all workers."""

    body: str
    headers: QuestionHeaders
    properties: dict[str, Any]
    content_type: Literal["application/json"] = Field(alias="content-type")
    content_encoding: Literal["utf-8"] = Field(alias="content-encoding")


class Arguments(Strict):
    """The arguments of all questions."""

    safe: bool | None = None
    with_defaults: bool | None = None
    taskinfoitems: Empty | None = None


class ReplyTo(Strict):
    """Where the answer goes; no other key than one for answers."""

    exchange: Literal["reply.celery.pidbox"]
    routing_key: Key


class Question(Strict):
    """A question or an order; a pattern of workers' names could take for ever to match."""

    method: Command
    arguments: Arguments | None = None
    destination: Annotated[list[Name], Field(max_length=10_000)] | None = None
    pattern: None = None
    matcher: None = None
    ticket: TaskId | None = None
    reply_to: ReplyTo | None = None


def check_question(content: bytes) -> None:
    """Check a message of remote control.

    Raises:
        InputError: it is too large, is not such a message, or is not a question that is answered.
    """
    message = read(QuestionEnvelope, content)
    try:
        body = base64.b64decode(message.body, validate=True)
    except ValueError:
        raise InputError("remote control: its body is not in base64") from None
    try:
        Question.model_validate_json(body)
    except ValidationError as error:
        raise InputError(f"remote control: {what_is_wrong(error)}") from None


def forget_other_commands() -> None:
    """Remove from this process the commands of Celery that no worker here takes."""
    for registry in (Panel.data, Panel.meta):
        for name in set(registry) - set(get_args(Command)):
            del registry[name]
