"""An outage of Redis is one line a minute in the log, whichever library reports it."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable

import kombu.exceptions
import pytest
import redis

from rankmill.errors import BrokerUnavailable, InputError
from rankmill.logs import get_logger
from rankmill.outage import OneLineAMinute, outage_line

FULL = redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")


@pytest.fixture
def lines(request: pytest.FixtureRequest) -> Callable[[], list[str]]:
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.addFilter(OneLineAMinute(every_s=getattr(request, "param", 60)))
    logger = logging.getLogger("celery.test_outage")
    logger.addHandler(handler)
    logger.propagate = False
    logging.getLogger("tasks.test_outage").addHandler(handler)
    request.addfinalizer(lambda: logging.getLogger("tasks.test_outage").removeHandler(handler))
    request.addfinalizer(lambda: logger.removeHandler(handler))
    return lambda: text.getvalue().splitlines()


def report(error: Exception, *, log: logging.Logger | None = None) -> None:
    """Log an error in each of the ways in which Celery, Flower and RedBeat do."""
    log = log or logging.getLogger("celery.test_outage")
    log.error("consumer: Cannot connect to %s: %s.\n%s", "redis://", error, "Trying again")
    log.warning("%s (%r)", "connection lost", error)
    try:
        raise error
    except Exception:
        log.exception("Error in timer")
        log.critical("failed: %r", error, exc_info=sys.exc_info())
    get_logger("tasks.test_outage").warning("task waits for Redis", error=BrokerUnavailable("full"))


def test_many_reports_are_one_line_without_a_traceback(lines: Callable[[], list[str]]) -> None:
    for _ in range(20):
        report(FULL)
    assert lines() == ["waiting for Redis"]


@pytest.mark.parametrize("lines", [0], indirect=True)
def test_each_report_is_a_line_once_the_minute_is_over(lines: Callable[[], list[str]]) -> None:
    report(FULL)
    assert lines() == ["waiting for Redis"] * 5


def test_other_lines_stay_unchanged(lines: Callable[[], list[str]]) -> None:
    for error in (ValueError("a bug"), InputError("bad input"), OSError("disk")):
        log = logging.getLogger("celery.test_outage")
        log.error("failed: %s", str(error), extra={"fields": {"error": str(error)}})
    assert lines() == ["failed: a bug", "failed: bad input", "failed: disk"]


def wrapped(error: Exception) -> Exception:
    try:
        raise kombu.exceptions.OperationalError(str(error)) from error
    except kombu.exceptions.OperationalError as raised:
        return raised


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FULL, "raise its maxmemory"),
        (wrapped(FULL), "raise its maxmemory"),
        (redis.exceptions.ReadOnlyError("You can't write"), "name the primary"),
        (redis.ResponseError("NOREPLICAS Not enough good replicas"), "bring its replicas back"),
        (redis.exceptions.NoPermissionError("no permissions to run 'x'"), "user default the"),
        (redis.ResponseError("MISCONF Redis is configured to save"), "its disk"),
        (redis.ResponseError("BUSY Redis is busy running a script."), "SCRIPT KILL"),
        (redis.exceptions.BusyLoadingError("loading the dataset"), "wait"),
        (redis.exceptions.MasterDownError("Link with MASTER is down"), "primary is away"),
        (redis.ConnectionError("max number of clients reached"), "raise its maxclients"),
        (redis.AuthenticationError("invalid username-password pair"), "login of user default"),
        (redis.ConnectionError("Connection refused"), "is it running"),
        (redis.exceptions.LockNotOwnedError("Cannot extend a lock"), "Cannot extend"),
    ],
)
def test_the_line_says_what_to_do(error: Exception, words: str) -> None:
    record = logging.LogRecord("celery.beat", logging.ERROR, "", 0, "failed: %s", (error,), None)
    line = outage_line(record)
    assert line is not None and words in line and "\n" not in line
