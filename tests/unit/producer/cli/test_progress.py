"""Progress is one line that fits any terminal, and all facts in a line a minute elsewhere."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

import pytest

from producer.cli import progress
from producer.cli.console import Console
from producer.cli.progress import phase, show_progress
from producer.jobs.status import JobStatus
from rankmill.contract.job_state import JobState


def status(state: JobState, n_done: int = 0, **facts: Any) -> JobStatus:
    return JobStatus(
        **{
            **{"job_id": "j", "state": state, "output_uri": "/o", "n_shards": 4, "message": ""},
            **{"n_shards_done": 0, "n_rows": 12_000, "n_pairs_done": n_done, "n_rejected": 0},
            **{"n_tokens": 80 * n_done, "pairs_per_s": 900.0 if n_done else None},
            **facts,
        }
    )


STATUSES = [
    status(JobState.SUBMITTED, n_rows=0),
    status(JobState.PREPARING, n_rows=0),
    status(JobState.RUNNING),
    status(JobState.RUNNING, 3000, busy_share=0.934, eta_s=10),
    status(JobState.RUNNING, 9000, busy_share=0.934, eta_s=3, reason="declined: 猫" + 90 * "é"),
    status(JobState.FINALIZING, 12_000),
    status(JobState.SUCCEEDED, 12_000),
]


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds


def ticking(clock: Clock, statuses: list[JobStatus], step_s: float) -> Iterator[JobStatus]:
    for each in statuses:
        clock.seconds += step_s
        yield each


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    moved = Clock()
    monkeypatch.setattr(progress, "time", moved)
    return moved


def lines_of(statuses: list[JobStatus], clock: Clock, step_s: float) -> list[str]:
    """Return what is printed where there is no terminal."""
    out = io.StringIO()
    show_progress(ticking(clock, statuses, step_s), Console(file=out, width=40))
    return out.getvalue().splitlines()


def test_elsewhere_each_phase_is_a_line_with_all_facts(clock: Clock) -> None:
    lines = lines_of(STATUSES, clock, 2.0)
    assert [line.split("  ")[0] for line in lines] == [
        *("starting", "preparing", "loading the model", "scoring", "finishing", "succeeded"),
    ]
    assert lines[2] == "loading the model  0:00:06"
    assert lines[3] == (
        "scoring  25%  3,000 of 12,000 rows  900 rows/s  busy 93%  0:00:08  ends in 0:00:10"
    )
    assert lines[-1] == "succeeded  100%  12,000 of 12,000 rows  900 rows/s while scoring  0:00:14"


def test_elsewhere_a_long_phase_is_a_line_a_minute(clock: Clock) -> None:
    scoring = [status(JobState.RUNNING, 10 * n) for n in range(1, 301)]
    lines = lines_of(scoring, clock, 1.0)
    assert len(lines) == 5
    assert all("10 rows/s  800 tokens/s" in line and "ends in" in line for line in lines[1:])


def test_while_nothing_is_scored_the_seconds_count_however_narrow_a_terminal_is(
    clock: Clock,
) -> None:
    waiting = status(JobState.RUNNING, reason="waiting for a worker of queue rankmill.gpu")
    resumed = status(JobState.RUNNING, 3000, pairs_per_s=None)
    for each, shown in (
        (waiting, "loading the model  0:00:02"),
        (resumed, "loading the model  0:00:02  25%"),
    ):
        out = io.StringIO()
        console = Console(file=out, force_terminal=True, width=34, color_system=None)
        show_progress(ticking(clock, [each], 2.0), console)
        drawn = re.split(r"[\r\n]+", re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", out.getvalue()))
        assert shown in drawn


@pytest.mark.parametrize("width", [1, 8, 20, 33, 60, 79, 120, 300])
def test_a_terminal_has_one_line_that_never_wraps(width: int, clock: Clock) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, color_system=None)
    with phase(console, "starting"):
        pass
    begun = len(out.getvalue())
    show_progress(ticking(clock, STATUSES, 2.0), console)
    drawn = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", out.getvalue())
    assert max(map(len, re.split(r"[\r\n]+", drawn))) <= width
    assert out.getvalue()[begun:].count("\n") == 1  # at the end
    if width >= 20:
        assert "succeeded  100%" in drawn
    assert ("[####################]" in drawn) == (width >= 120)
