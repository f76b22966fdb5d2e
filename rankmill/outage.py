"""Log an outage of Redis as one line a minute, whichever library reports it.

Celery, kombu, RedBeat, Flower and this project each log every command that fails, some of them with
a traceback. An outage of a minute would be hundreds of lines.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

import kombu.exceptions
import redis

from rankmill.errors import BrokerUnavailable
from rankmill.ledger.client import unavailable

EVERY_S = 60.0

# Libraries that wrap an error of Redis in one of their own.
_WRAPPERS = ("celery.", "kombu.", "billiard.")


class OneLineAMinute(logging.Filter):
    """Rewrites the first record about an outage in each minute, and drops the rest of them."""

    def __init__(self, every_s: float = EVERY_S) -> None:
        super().__init__()
        self._every_s = every_s
        self._next_at = 0.0
        self._n_dropped = 0
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is written; one about an outage is rewritten."""
        line = outage_line(record)
        if line is None:
            return True
        with self._lock:
            now = time.monotonic()
            if now < self._next_at:
                self._n_dropped += 1
                return False
            self._next_at = now + self._every_s
            n_dropped, self._n_dropped = self._n_dropped, 0
        record.msg, record.args = "waiting for Redis", ()
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.exc_info = record.exc_text = record.stack_info = None
        record.fields = {"error": line, **({"n_similar": n_dropped} if n_dropped else {})}
        return True


def outage_line(record: logging.LogRecord) -> str | None:
    """Return the error of Redis that a record is about, in one line; None for other records."""
    for error in _errors(record):
        if isinstance(error, BrokerUnavailable):
            return str(error)
        if isinstance(error, redis.RedisError | kombu.exceptions.OperationalError):
            return str(unavailable(error))
        if isinstance(error, OSError) and record.name.startswith(("celery.", "kombu.", "flower.")):
            return str(unavailable(error))
    return None


def _errors(record: logging.LogRecord) -> Iterator[BaseException]:
    """Yield the exceptions of a record, and the causes of those that only wrap them."""
    arguments = record.args.values() if isinstance(record.args, dict) else record.args or ()
    fields = getattr(record, "fields", {})
    found = [record.exc_info[1] if record.exc_info else None, *arguments, *fields.values()]
    for error in found:
        while isinstance(error, BaseException):
            yield error
            is_wrapper = type(error).__module__.startswith(_WRAPPERS)
            error = (error.__cause__ or error.__context__) if is_wrapper else None
