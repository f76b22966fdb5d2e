"""The schema of a message as it is in Redis: kombu's envelope round Celery's headers and body.

It allows what Celery writes when it sends, retries or restores a message, and what clients in other
languages write by Celery's protocol 2. It refuses other headers that mean something to Celery, such
as time limits, callbacks and compression: no task here uses them.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    StringConstraints,
    ValidationError,
)

from rankmill.errors import InputError
from rankmill.wrong_value import wrong_value

# The maximum size of a message in Redis, with its body in base64.
MAX_BYTES = 2**20

# After this time Redis delivers a message again; with a later start it would run twice.
_MAX_DELAY = timedelta(hours=6)
_MAX_LIFE = timedelta(days=366)
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_ISO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)?")

ModelT = TypeVar("ModelT", bound=BaseModel)


def _time(text: str, latest: timedelta) -> str:
    if not _ISO_TIME.fullmatch(text):
        raise ValueError("is not a time in ISO 8601")
    at = datetime.fromisoformat(text)
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    if not _EARLIEST <= at <= datetime.now(UTC) + latest:
        hours = int(latest.total_seconds() // 3600)
        raise ValueError(f"is before 2000, or more than {hours:,} hours ahead")
    return text


def _eta(text: str) -> str:
    return _time(text, _MAX_DELAY)


def _expiry(text: str) -> str:
    return _time(text, _MAX_LIFE)


Name = Annotated[str, StringConstraints(max_length=255)]
TaskId = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,255}$")]
Shown = Annotated[str, StringConstraints(max_length=4096)]
Retries = Annotated[int, Field(ge=0, le=100)]
Index = Annotated[int, Field(ge=0, lt=2**31)]
QueueName = Annotated[str, StringConstraints(pattern=r"^rankmill\.[A-Za-z0-9_.-]{1,200}$")]
ExchangeName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{0,200}$")]


Empty = Annotated[list[None], Field(max_length=0)]


class Strict(BaseModel):
    """A part of a message; an unknown field is an error."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Headers(Strict):
    """Celery's headers, and those of tracing tools, which are ignored."""

    task: Name
    id: TaskId
    lang: Name | None = None
    shadow: None = None
    meth: None = None
    eta: Annotated[str, AfterValidator(_eta)] | None = None
    expires: Annotated[str, AfterValidator(_expiry)] | None = None
    group: Name | None = None
    group_index: Index | None = None
    retries: Retries | None = None
    timelimit: tuple[None, None] | None = None
    root_id: Name | None = None
    parent_id: Name | None = None
    argsrepr: Shown | None = None
    kwargsrepr: Shown | None = None
    origin: Name | None = None
    ignore_result: bool | None = None
    replaced_task_nesting: Index | None = None
    stamped_headers: Empty | None = None
    stamps: dict[str, None] | None = Field(default=None, max_length=0)
    redelivered: bool | None = None  # set by kombu when it restores a message
    celery_beat_task: bool | None = None
    periodic_task_name: Name | None = None
    traceparent: Shown | None = None
    tracestate: Shown | None = None
    baggage: Shown | None = None
    sentry_trace: Shown | None = Field(default=None, alias="sentry-trace")


class DeliveryInfo(Strict):
    """The place that a message was sent to; kombu puts it back there."""

    exchange: ExchangeName
    routing_key: QueueName
    priority: Annotated[int, Field(ge=0, le=255)] | None = None
    redelivered: bool | None = None


class Properties(Strict):
    """The properties of a message; Celery copies some options of a task to them."""

    delivery_info: DeliveryInfo
    delivery_tag: TaskId
    body_encoding: Literal["base64"]
    delivery_mode: Literal[1, 2] | None = None
    priority: Annotated[int, Field(ge=0, le=255)] | None = None
    correlation_id: Name | None = None
    reply_to: Name | None = None
    expiration: Name | None = None
    origin: Name | None = None
    argsrepr: Shown | None = None
    kwargsrepr: Shown | None = None
    message_id: Name | None = None
    timestamp: int | None = None
    type: Name | None = None
    user_id: Name | None = None
    app_id: Name | None = None


class Envelope(Strict):
    """A message as it is in a queue.

    The content's type and encoding are any text here, so that an error can name the one found.
    """

    body: str
    headers: Headers
    properties: Properties
    content_type: Name = Field(alias="content-type")
    content_encoding: Name = Field(alias="content-encoding")


class Unacked(RootModel[tuple[Envelope, ExchangeName, QueueName]]):
    """A message that a worker has taken and not acknowledged, with its exchange and queue."""

    model_config = ConfigDict(strict=True, frozen=True)


class Embedded(Strict):
    """The third part of a body, Celery's follow-up tasks; it must be empty."""

    callbacks: Empty | None = None
    errbacks: Empty | None = None
    chain: Empty | None = None
    chord: None = None


class Body(Strict):
    """The three parts of a body, by name."""

    arguments: list[Any]
    named: dict[str, Any]
    embedded: Embedded | None


def read(model: type[ModelT], content: bytes) -> ModelT:
    """Read a part of a message from JSON.

    Raises:
        InputError: it is too large, is not JSON, or a field is wrong.
    """
    if len(content) > MAX_BYTES:
        raise InputError(f"it is larger than {MAX_BYTES:,} bytes")
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        raise InputError(what_is_wrong(error)) from None


def what_is_wrong(error: ValidationError) -> str:
    """Return a line about the first wrong field of a message."""
    line = wrong_value(error)
    return line if error.errors()[0]["loc"] else f"it {line}"
