"""What becomes of due times that have just been seen; a pure function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from producer.schedules.spec import Firing, FiringState, ScheduleSpec

# A schedule whose runs take longer than its interval would else queue up for ever.
_MAX_WAITING = 20


@dataclass(frozen=True)
class Decision:
    due: datetime
    state: FiringState
    message: str = ""


def decide(
    spec: ScheduleSpec, dues: Sequence[datetime], now: datetime, open_firings: Sequence[Firing]
) -> list[Decision]:
    """One decision for each due time, of which one at most is to run.

    That is the newest, if it is not older than the grace time or else the policy is to run the
    latest missed one; all before it were missed.

    Args:
        dues: in order, none after `now`.
        open_firings: earlier ones of the schedule that have not ended.
    """
    if not dues:
        return []
    *earlier, newest = dues
    decisions = [_missed(due, now) for due in earlier]
    in_time = now - newest <= timedelta(minutes=spec.grace_min)
    if in_time or spec.missed == "latest":
        decisions.append(_to_run(spec, newest, open_firings))
    else:
        decisions.append(_missed(newest, now))
    return decisions


def _to_run(spec: ScheduleSpec, due: datetime, open_firings: Sequence[Firing]) -> Decision:
    if not open_firings:
        return Decision(due, FiringState.STARTING)
    if spec.overlap == "queue" and len(open_firings) <= _MAX_WAITING:
        return Decision(due, FiringState.WAITING)
    return Decision(due, FiringState.OVERLAPPED, behind(open_firings))


def behind(open_firings: Sequence[Firing]) -> str:
    """Why nothing can start now, for people."""
    first, n_more = open_firings[0], len(open_firings) - 1
    more = f", with {n_more} behind it" if n_more else ""
    return f"the run of {first.due:%Y-%m-%d %H:%M:%S} UTC has not ended{more}"


def _missed(due: datetime, now: datetime) -> Decision:
    late = timedelta(seconds=round((now - due).total_seconds()))
    return Decision(due, FiringState.MISSED, f"seen {late} after it was due")
