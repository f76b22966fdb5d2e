"""Write one line for each event: JSON for machines or text for people, without secrets.

Rankmill's own events come through `get_logger`; those of libraries come through `logging`. In a
process without `set_up`, own events are plain records of `logging`.

Bind what a piece of work is about once; then it is on each line of that thread:

    with bound_contextvars(job_id=job_id, shard_index=shard_index):
        ...
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, TextIO, cast
from urllib.parse import quote, unquote

import structlog
from structlog.contextvars import merge_contextvars
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor, WrappedLogger

from rankmill.broker import work_of
from rankmill.outage import OneLineAMinute
from rankmill.settings import Settings
from rankmill.shown import HIDDEN, escaped, escaped_lines, masked

# Other loggers write warnings and errors only: at lower levels botocore and httpx log keys.
_OWN_LOGGERS = ("rankmill", "producer", "worker", "tasks", "celery", "flower", "redbeat")

# A shorter password is masked only in a URL: anywhere else it might be a part of any word.
_MIN_SECRET_CHARS = 6

_HANDLER_NAME = "rankmill"


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return a logger that takes fields as keywords: `log.info("shard started", n_tries=2)`."""
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
    """Return the arguments of `logging`; fields are nested, since `extra` refuses some names."""
    message, exc_info = event.pop("event"), event.pop("exc_info", None)
    return (message,), {"exc_info": exc_info, "extra": {"fields": event}}


def set_up(settings: Settings, **process: str) -> logging.Handler:
    """Send all lines of this process to stderr; a second call replaces the first.

    Args:
        settings: the format, the level, and the secrets to mask.
        process: fields of every line.
    """
    handler = logging.StreamHandler(sys.__stderr__)
    handler.name = _HANDLER_NAME
    handler.addFilter(OneLineAMinute())
    handler.setFormatter(line_formatter(settings, process, sys.__stderr__))
    logging.root.handlers = [handler]
    level = logging.getLevelNamesMapping()[settings.log_level]
    logging.root.setLevel(max(level, logging.WARNING))
    for name in _OWN_LOGGERS:
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(True)
    return handler


def is_set_up() -> bool:
    """Return whether `set_up` was called in this process."""
    return any(handler.name == _HANDLER_NAME for handler in logging.root.handlers)


def line_formatter(
    settings: Settings, process: dict[str, str], stream: TextIO | None
) -> logging.Formatter:
    """Return what makes a line of a record, own or another's; in text a traceback follows it.

    Args:
        settings: the format, and the secrets to mask.
        process: fields of every line.
        stream: where the lines go; None for a pipe.
    """
    is_terminal = stream is not None and stream.isatty()
    if settings.log_format == "json" or (settings.log_format == "auto" and not is_terminal):
        renderers: list[Processor] = [structlog.processors.JSONRenderer(default=str)]
    else:
        console = structlog.dev.ConsoleRenderer(
            colors=is_terminal, exception_formatter=structlog.dev.plain_traceback
        )
        renderers = [_escape_fields, console]
    secrets = sorted(_spellings(settings.secrets()), key=len, reverse=True)

    def add_fields(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        record: logging.LogRecord = event["_record"]
        # Celery's own lines name the message that they are about.
        message = getattr(record, "data", None)
        if isinstance(message, dict) and {"id", "name"} <= message.keys():
            task_id = message["id"]
            task = {"task": message["name"], "task_id": task_id, **work_of(str(task_id))}
        else:
            task = {}
        return {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(
                timespec="milliseconds"
            ),
            "level": record.levelname.lower(),
            "event": event.pop("event"),
            "logger": record.name,
            **process,
            **task,
            **getattr(record, "fields", {}),
            **event,
        }

    def mask(_: WrappedLogger, __: str, line: Any) -> str:
        for secret in secrets:
            line = line.replace(secret, HIDDEN)
        return masked(line)

    return ProcessorFormatter(
        processors=[
            add_fields,
            ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            *renderers,
            mask,
        ]
    )


def _escape_fields(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Escape what steers a terminal; only a traceback keeps its ends of lines."""
    return {
        name: (escaped_lines if name == "exception" else escaped)(value)
        if isinstance(value, str)
        else value
        for name, value in event.items()
    }


def _spellings(secrets: Iterable[str]) -> Iterator[str]:
    """Return each secret as it may appear in a line: plain, in a URL, in JSON."""
    for secret in secrets:
        if len(secret) >= _MIN_SECRET_CHARS:
            for spelling in {secret, unquote(secret), quote(secret, safe="")}:
                yield from {spelling, json.dumps(spelling)[1:-1]}
