"""One line for each event: JSON for machines, another form for people, in neither a secret.

Our events come through `get_logger`; those of libraries come through `logging`. A process that
nobody has called `set_up` in gets ours as plain records of `logging`, to do with as it likes.

What an event is about is bound by whoever knows it, and then on each line of that thread:

    with bound_contextvars(job_id=job_id, shard_index=shard_index):
        ...
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, TextIO, cast
from urllib.parse import quote, unquote

import structlog
from structlog.contextvars import merge_contextvars
from structlog.typing import EventDict, WrappedLogger

from rankmill.broker import work_of
from rankmill.settings import Settings
from rankmill.shown import HIDDEN, escaped, escaped_lines, masked

# Others' loggers say what they warn of and no more: at lower levels botocore and httpx tell keys.
_TOLD_IN_FULL = ("rankmill", "producer", "worker", "tasks", "celery", "flower", "redbeat")

_MIN_SECRET = 6  # characters; a shorter password is hidden where it stands in a URL


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger whose keyword arguments are fields: `log.info("shard is run", n_tries=2)`."""
    wrapped = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[
            structlog.stdlib.filter_by_level,
            merge_contextvars,
            structlog.stdlib.PositionalArgumentsFormatter(),
            _as_record,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return cast(structlog.stdlib.BoundLogger, wrapped)


def _as_record(_: WrappedLogger, __: str, event: EventDict) -> tuple[tuple[str], dict[str, Any]]:
    message, exc_info = event.pop("event"), event.pop("exc_info", None)
    return (message,), {"exc_info": exc_info, "extra": {"fields": event}}


def set_up(settings: Settings, **process: str) -> logging.Handler:
    """Have all lines of this process written to stderr; a second call replaces the first.

    `process` are fields of every line.
    """
    handler = logging.StreamHandler(sys.__stderr__)
    handler.setFormatter(LineFormatter(settings, process, sys.__stderr__))
    logging.root.handlers = [handler]
    level = logging.getLevelNamesMapping()[settings.log_level]
    logging.root.setLevel(max(level, logging.WARNING))
    for name in _TOLD_IN_FULL:
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(True)
    return handler


def is_set_up() -> bool:
    return any(isinstance(each.formatter, LineFormatter) for each in logging.root.handlers)


class LineFormatter(logging.Formatter):
    """Makes one line of a record, ours or another's; on a terminal a traceback follows it."""

    def __init__(self, settings: Settings, process: dict[str, str], stream: TextIO | None) -> None:
        super().__init__()
        self._process = process
        self._secrets = sorted(_spellings(settings.secrets()), key=len, reverse=True)
        is_terminal = stream is not None and stream.isatty()
        wants_json = settings.log_format == "json"
        as_json = wants_json or (settings.log_format == "auto" and not is_terminal)
        self._render: Callable[[dict[str, Any]], str] = (
            _as_json if as_json else _for_people(colors=is_terminal)
        )

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "timestamp": _utc(record.created),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
            **self._process,
            **_celery_fields(record),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0]:
            line["exception"] = self.formatException(record.exc_info)
        return self._without_secrets(self._render(line))

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return masked(text)


def _spellings(secrets: Iterable[str]) -> Iterator[str]:
    """Each secret as it may stand in a line: as it is, in a URL, in JSON."""
    for secret in secrets:
        if len(secret) >= _MIN_SECRET:
            for spelling in {secret, unquote(secret), quote(secret, safe="")}:
                yield from {spelling, json.dumps(spelling)[1:-1]}


def _utc(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="milliseconds")


def _celery_fields(record: logging.LogRecord) -> dict[str, Any]:
    """What Celery's own lines are about, by the name of the message."""
    told = getattr(record, "data", None)
    if not isinstance(told, dict) or "id" not in told or "name" not in told:
        return {}
    return {"task": told["name"], "task_id": told["id"], **work_of(str(told["id"]))}


def _as_json(line: dict[str, Any]) -> str:
    return json.dumps(line, default=str)


def _for_people(*, colors: bool) -> Callable[[dict[str, Any]], str]:
    renderer = structlog.dev.ConsoleRenderer(
        colors=colors, exception_formatter=structlog.dev.plain_traceback
    )

    def render(line: dict[str, Any]) -> str:
        shown = {
            name: escaped(value) if isinstance(value, str) else value
            for name, value in line.items()
        }
        if "exception" in line:
            shown["exception"] = escaped_lines(line["exception"])
        return renderer(None, "", shown)

    return render
