"""Lines of the log: JSON or text, with the fields of their work, without secrets."""

from __future__ import annotations

import json
import logging
import os
import pty
import subprocess
import sys
from typing import Any

import pytest
from structlog.contextvars import bound_contextvars

from rankmill.broker import work_of
from rankmill.logs import get_logger, line_formatter
from rankmill.settings import CHECKOUT, Settings

SIGNED = (
    "https://s3.example/b/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAEXAMPLE%2F2026"
    "&X-Amz-Security-Token=tok3n&X-Amz-Signature=5168aa"
)


class Caught(logging.Handler):
    """A handler that keeps its lines."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.setFormatter(line_formatter(settings, {"worker": "cuda0@here"}, None))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def lines_of(name: str, settings: Settings, say: Any) -> list[str]:
    logger, caught = logging.getLogger(name), Caught(settings)
    logger.setLevel(logging.INFO)
    logger.addHandler(caught)
    try:
        say(logger)
    finally:
        logger.removeHandler(caught)
    return caught.lines


def test_an_event_has_its_fields() -> None:
    def say(_: Any) -> None:
        with bound_contextvars(job_id="abc", shard_index=3):
            get_logger("worker.test").info("shard started", n_tries=2)
            get_logger("worker.test").info("of %s", "another", job_id="other")
        get_logger("worker.test").debug("below the level")

    first, second = map(json.loads, lines_of("worker.test", Settings(), say))
    assert first.pop("timestamp").endswith("+00:00")
    assert first == {
        "level": "info",
        "event": "shard started",
        "logger": "worker.test",
        "worker": "cuda0@here",
        "job_id": "abc",
        "shard_index": 3,
        "n_tries": 2,
    }
    assert (second["event"], second["job_id"], second["shard_index"]) == ("of another", "other", 3)


def test_lines_of_celery_have_the_fields_of_their_shard() -> None:
    task = {"name": "rankmill.score_shard", "id": "0123456789ab-00007", "kwargs": "job …"}
    (line,) = lines_of(
        "celery.test", Settings(), lambda log: log.info("Task received", extra={"data": task})
    )
    line_fields = json.loads(line)
    assert (line_fields["task"], line_fields["job_id"]) == ("rankmill.score_shard", "0123456789ab")
    assert line_fields["shard_index"] == 7 and "kwargs" not in line_fields


@pytest.mark.parametrize(
    ("task_id", "about"),
    [
        ("0123456789ab-00007", {"job_id": "0123456789ab", "shard_index": 7}),
        ("0123456789ab-123456", {"job_id": "0123456789ab", "shard_index": 123456}),
        ("0123456789ab-finalize", {"job_id": "0123456789ab"}),
        ("01234567-89ab-4cde-8f01-23456789abcd", {}),
        ("anything", {}),
    ],
)
def test_the_id_of_a_message_gives_its_job_and_shard(task_id: str, about: dict[str, Any]) -> None:
    assert work_of(task_id) == about


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_line_shows_a_secret(form: str) -> None:
    settings = Settings.model_validate(
        {
            "broker_url": "rediss://worker:pa%22ss-w0rd@redis:6379/0",
            "flower_basic_auth": "eve:correct-horse,bob:battery-staple",
            "log_format": form,
        }
    )

    def say(log: Any) -> None:
        for text in (
            f"no answer from {settings.broker_url}",
            'AUTH worker pa"ss-w0rd',
            "redis://:other-login@elsewhere/1 and s3://bucket/a@b",
            f"GET {SIGNED}&versionId=7",
            "battery-staple",
        ):
            get_logger(log.name).warning(text, value=text)
            log.warning("%s", text)
            try:
                raise ValueError(text)
            except ValueError:
                get_logger(log.name).exception("it broke")

    said = "\n".join(lines_of("worker.secrets", settings, say))
    for secret in (
        *("pa%22ss", 'pa"ss', 'pa\\"ss', "w0rd", "other-login", "AKIAEXAMPLE", "tok3n"),
        *("5168aa", "battery", "correct-horse"),
    ):
        assert secret not in said, secret
    assert "s3://bucket/a@b" in said and "versionId=7" in said and "redis:6379" in said
    if form == "json":
        assert all(json.loads(line) for line in said.splitlines())


SAY = """
from rankmill import logs
from rankmill.settings import settings
logs.set_up(settings(), worker="cuda0@here")
logs.get_logger("worker.delivery").info("shard started", job_id="abc", shard_index=3)
"""


def test_a_pipe_gets_json_and_a_terminal_gets_text() -> None:
    piped = subprocess.run(
        [sys.executable, "-c", SAY], capture_output=True, text=True, cwd=CHECKOUT
    )
    assert json.loads(piped.stderr)["shard_index"] == 3
    assert piped.stdout == ""
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        subprocess.run([sys.executable, "-c", SAY], stderr=theirs, cwd=CHECKOUT, check=True)
        shown = terminal.read(4096).decode()
        os.close(theirs)
    assert "shard started" in shown and "\x1b[" in shown and not shown.startswith("{")


def test_an_import_sets_up_nothing() -> None:
    code = (
        "import logging, tasks.celery, tasks.jobs, producer.jobs.submit\n"
        "from producer.cli.app import whole_app; whole_app()\n"
        "assert not logging.root.handlers and logging.root.level == logging.WARNING"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=CHECKOUT
    )
    assert done.returncode == 0, done.stderr


def test_a_wrong_level_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "producer.cli", "worker"],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        env={**os.environ, "RANKMILL_LOG_LEVEL": "LOUD"},
    )
    assert done.returncode == 2 and "RANKMILL_LOG_LEVEL" in done.stderr
