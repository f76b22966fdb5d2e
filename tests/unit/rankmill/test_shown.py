"""Shown text: without secrets, on one line, without control characters."""

from __future__ import annotations

import io
import logging
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.cli.console import Console
from producer.cli.job_view import preview_table
from producer.jobs.preview import Candidate, QueryPreview
from rankmill.errors import InputError, JobFailed
from rankmill.logs import line_formatter
from rankmill.settings import Settings
from rankmill.shown import error_line
from tasks.base import Shell
from tests.support.command import rankmill

STEERING = "\x1b[2J\x1b]0;owned\x07\r\n\x9b31m\u202e\u2028"
SIGNED = "https://me:pa55@host/k?X-Amz-Signature=5168aa&a=1"


def test_an_error_is_one_escaped_line_without_secrets() -> None:
    error = InputError(f"{SIGNED}{STEERING} is wrong")
    assert str(error) == (
        r"https://***@host/k?X-Amz-Signature=***&a=1\x1b[2J\x1b]0;owned\x07\r\n\x9b31m\u202e\u2028"
        " is wrong"
    )
    assert "5168aa" not in repr(error)
    assert "pa55" not in repr(error)


def test_a_long_error_keeps_its_beginning_and_end() -> None:
    line = str(JobFailed("in.run: " + "x" * 4_000_000 + "; set RANKMILL_X higher", 2))
    assert len(line) == 1000
    assert line.startswith("in.run: xxx")
    assert "…" in line
    assert line.endswith("; set RANKMILL_X higher")


@given(st.text())
def test_an_error_line_stays_as_it_is(text: str) -> None:
    line = error_line(text * 50)
    assert error_line(line) == line
    assert len(line.splitlines()) <= 1
    assert str(pickle.loads(pickle.dumps(InputError(text)))) == error_line(text)


def test_a_failed_task_has_no_cause_with_the_raw_text() -> None:
    class Failing(Shell):
        name = "failing"

        def run(self) -> None:
            try:
                raise ValueError(SIGNED)
            except ValueError as error:
                raise InputError(f"{SIGNED} is wrong") from error

    with pytest.raises(InputError, match="is wrong") as caught:
        Failing()()
    assert "5168aa" not in str(caught.getrepr(chain=True))


def test_a_log_in_text_has_one_line_for_an_event() -> None:
    record = logging.LogRecord("a", logging.INFO, "", 0, f"said {STEERING}end", (), None)
    record.fields = {"path": f"b{STEERING}"}
    line = line_formatter(Settings(log_format="text"), {}, None).format(record)
    assert len(line.splitlines()) == 1
    assert line.isprintable()


def test_tables_escape_ids_and_queries() -> None:
    candidate = Candidate(label=f"id{STEERING}", place_before=1, score=1.0)
    shown = QueryPreview(query=f"q{STEERING}", before=[candidate], after=[candidate])
    file = io.StringIO()
    Console(file=file, width=200).print(preview_table(shown), f"text {STEERING}end")
    assert all(line.isprintable() for line in file.getvalue().split("\n"))


def test_a_name_with_escapes_reaches_the_terminal_escaped(tmp_path: Path) -> None:
    (tmp_path / "in\x1b[2J.run").write_text("a " * 100_000 + "\n")
    ended = rankmill("submit", tmp_path / "in\x1b[2J.run", tmp_path / "out")
    assert ended.returncode == 2
    assert r"in\x1b[2J.run" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert len(ended.stderr) < 1100
