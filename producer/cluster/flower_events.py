"""Check the events that Flower receives, so that no malformed one spoils its pages.

Everyone who may send tasks may publish events. Celery and Flower keep any values of an event.
A clock that is a text stops all later events. A name that is a number breaks the page of tasks
until a restart.
"""

from __future__ import annotations

import base64
import time
from typing import Annotated, Any, Literal, cast

from kombu.transport import redis as transport
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from rankmill.logs import get_logger
from rankmill.shown import escaped
from rankmill.wrong_value import wrong_value

log = get_logger(__name__)

_LOG_EVERY_S = 60.0
_SHOWN = 300

Name = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Text = Annotated[str, StringConstraints(max_length=2**16)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
Time = Annotated[float, Field(ge=0, lt=2**32, allow_inf_nan=False)]
Number = Annotated[float, Field(ge=0, lt=2**53, allow_inf_nan=False)]


class _Part(BaseModel):
    """A part of a message; an unknown field is left out."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class _Event(_Part):
    """An event of Celery, with the fields that Celery and this project send."""

    type: str
    hostname: Name
    timestamp: Time
    utcoffset: Annotated[float, Field(ge=-48, le=48)] = 0
    clock: Count = 0
    pid: Count = 0


class TaskEvent(_Event):
    """An event about a task."""

    type: Annotated[str, StringConstraints(pattern=r"^task-[a-z_ ]{1,60}$")]
    uuid: Name
    name: Name | None = None
    args: Text | None = None
    kwargs: Text | None = None
    root_id: Name | None = None
    parent_id: Name | None = None
    retries: Count | None = None
    eta: Name | None = None
    expires: Name | None = None
    queue: Text | None = None
    exchange: Text | None = None
    routing_key: Text | None = None
    result: Text | None = None
    runtime: Number | None = None
    exception: Text | None = None
    traceback: Text | None = None
    terminated: bool | None = None
    expired: bool | None = None
    requeue: bool | None = None
    signum: int | str | None = None


class WorkerEvent(_Event):
    """An event about a worker."""

    type: Literal["worker-online", "worker-heartbeat", "worker-offline"]
    freq: Annotated[float, Field(gt=0, le=86400)] = 60.0
    active: Count | None = None
    processed: Count | None = None
    loadavg: list[Number] | None = None
    sw_ident: Name | None = None
    sw_ver: Name | None = None
    sw_sys: Name | None = None


class _Headers(_Part):
    compression: None = None


class _Properties(_Part):
    delivery_tag: Name
    delivery_info: dict[Literal["exchange", "routing_key"], Text]
    body_encoding: Literal["base64"]


class _Message(_Part):
    """kombu's envelope, with one event or several in its body."""

    body: Annotated[str, StringConstraints(max_length=2**20)]
    headers: _Headers
    properties: _Properties
    content_type: Literal["application/json"] = Field(alias="content-type")
    content_encoding: Literal["utf-8"] = Field(alias="content-encoding")


_BODY: TypeAdapter[Any] = TypeAdapter(TaskEvent | WorkerEvent | list[TaskEvent | WorkerEvent])


def checked(content: bytes) -> bytes:
    """Return a message of events with their known fields alone.

    Raises:
        ValueError: it is not such a message, or a field has a wrong type.
    """
    message = _Message.model_validate_json(content)
    events = _BODY.validate_json(base64.b64decode(message.body))
    body = base64.b64encode(_BODY.dump_json(events, exclude_unset=True)).decode()
    return message.model_copy(update={"body": body}).model_dump_json(by_alias=True).encode()


def check_all() -> None:
    """Make every connection of this process check the events that it receives."""
    for kind in (transport.Transport, transport.SentinelTransport):
        if not issubclass(kind.Channel, CheckedEvents):
            checking = type("Channel", (CheckedEvents, kind.Channel), {})
            kind.Channel = cast(type[transport.Channel], checking)


class CheckedEvents(transport.Channel):
    """A channel that drops malformed events; it logs one of them a minute."""

    _next_line_at = 0.0

    def _handle_message(self, client: Any, r: Any) -> Any:
        payload = cast(Any, super())._handle_message(client, r)
        if payload["type"] in (b"message", b"pmessage"):
            try:
                payload["data"] = checked(payload["data"])
            except ValueError as error:
                payload["data"] = b""  # kombu takes it for no message
                self._log(error)
        return payload

    def _log(self, error: ValueError) -> None:
        if time.monotonic() >= CheckedEvents._next_line_at:
            CheckedEvents._next_line_at = time.monotonic() + _LOG_EVERY_S
            what = wrong_value(error) if isinstance(error, ValidationError) else str(error)
            log.warning("event dropped", error=escaped(what)[:_SHOWN])
