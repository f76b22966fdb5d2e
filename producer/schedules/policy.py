"""Decide what to do with due times that have passed: run, wait, or skip. A pure function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from producer.schedules.spec import Firing, FiringState, ScheduleSpec

# Without a limit, a schedule whose runs take longer than its interval would queue up for ever.
_MAX_WAITING = 20


@dataclass(frozen=True)
class Decision:
    """The state of a due time, and why."""

    due: datetime
    state: FiringState
    message: str = ""


def decide(
    spec: ScheduleSpec, dues: Sequence[datetime], now: datetime, open_firings: Sequence[Firing]
) -> list[Decision]:
    """Return one decision for each due time; at most one of them runs.

    Only the newest can run: if it is within the grace time, or if the policy is to run the latest
    missed one. All earlier ones were missed.

    Args:
        spec: the schedule.
        dues: due times in order, none after `now`.
        now: the current time.
        open_firings: earlier firings of the schedule that have not ended.
    """
    if not dues:
        return []
    *earlier, newest = dues
    decisions = [_missed(due, now) for due in earlier]
    in_time = now - newest <= timedelta(minutes=spec.grace_min)
    if not in_time and spec.missed != "latest":
        return [*decisions, _missed(newest, now)]
    if not open_firings:
        return [*decisions, Decision(newest, FiringState.STARTING)]
    if spec.overlap == "queue" and len(open_firings) <= _MAX_WAITING:
        return [*decisions, Decision(newest, FiringState.WAITING)]
    return [*decisions, Decision(newest, FiringState.OVERLAPPED, behind(open_firings))]


def behind(open_firings: Sequence[Firing]) -> str:
    """Return, for people, which open run keeps a new one from starting."""
    first, n_more = open_firings[0], len(open_firings) - 1
    more = f", with {n_more} behind it" if n_more else ""
    return f"the run of {first.due:%Y-%m-%d %H:%M:%S} UTC has not ended{more}"


def _missed(due: datetime, now: datetime) -> Decision:
    late = timedelta(seconds=round((now - due).total_seconds()))
    return Decision(due, FiringState.MISSED, f"seen {late} after it was due")
