"""What becomes of due times: run, skipped, queued, missed; each of them something."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.schedules.policy import decide
from producer.schedules.spec import Firing, FiringState, ScheduleSpec
from rankmill.contract.job import JobOptions

NOW = datetime(2026, 11, 21, 4, 0, tzinfo=UTC)


def schedule(**fields: Any) -> ScheduleSpec:
    job = JobOptions(input_uri="/in", model_id="null")
    return ScheduleSpec(name="nightly", cron="15 2 * * *", job=job, output_uri="/out", **fields)


def ago(minutes: int) -> datetime:
    return NOW - timedelta(minutes=minutes)


def running(n: int = 1) -> list[Firing]:
    state = FiringState.RUNNING
    return [
        Firing(schedule="nightly", due=ago(600 + i), state=state, noted_at=NOW) for i in range(n)
    ]


def states(spec: ScheduleSpec, minutes: list[int], open_firings: list[Firing]) -> list[FiringState]:
    decided = decide(spec, [ago(n) for n in minutes], NOW, open_firings)
    assert [each.due for each in decided] == [ago(n) for n in minutes]
    return [each.state for each in decided]


STARTING, WAITING, OVERLAPPED, MISSED = (
    *(FiringState.STARTING, FiringState.WAITING),
    *(FiringState.OVERLAPPED, FiringState.MISSED),
)


@pytest.mark.parametrize(
    "fields, minutes, n_open, expected",
    [
        ({}, [], 0, []),
        ({}, [1], 0, [STARTING]),
        ({}, [60], 0, [STARTING]),
        ({}, [61], 0, [MISSED]),
        ({"grace_min": 90}, [61], 0, [STARTING]),
        ({}, [40, 20, 0], 0, [MISSED, MISSED, STARTING]),
        ({}, [1], 1, [OVERLAPPED]),
        ({"overlap": "queue"}, [1], 1, [WAITING]),
        ({"overlap": "queue"}, [1], 20, [WAITING]),
        ({"overlap": "queue"}, [1], 21, [OVERLAPPED]),
        ({"missed": "latest"}, [3000, 1500, 105], 0, [MISSED, MISSED, STARTING]),
        ({"missed": "latest"}, [1500, 105], 1, [MISSED, OVERLAPPED]),
        ({"missed": "latest", "overlap": "queue"}, [105], 1, [WAITING]),
    ],
)
def test_policies(
    fields: dict[str, Any], minutes: list[int], n_open: int, expected: list[FiringState]
) -> None:
    assert states(schedule(**fields), minutes, running(n_open)) == expected


def test_a_skipped_time_says_why() -> None:
    (missed,) = decide(schedule(), [ago(105)], NOW, [])
    assert missed.message == "seen 1:45:00 after it was due"
    (overlapped,) = decide(schedule(), [ago(1)], NOW, running(3))
    assert overlapped.message == (
        "the run of 2026-11-20 18:00:00 UTC has not ended, with 2 behind it"
    )


@settings(max_examples=100)
@given(
    st.sampled_from(["skip", "queue"]),
    st.sampled_from(["skip", "latest"]),
    st.lists(st.integers(0, 5000), unique=True, max_size=8),
    st.integers(0, 25),
)
def test_each_due_time_becomes_something_and_one_at_most_runs(
    overlap: str, missed: str, minutes: list[int], n_open: int
) -> None:
    spec = schedule(overlap=overlap, missed=missed)
    found = states(spec, sorted(minutes, reverse=True), running(n_open))
    assert len([state for state in found if state.is_open]) <= 1
    assert STARTING not in found or n_open == 0
