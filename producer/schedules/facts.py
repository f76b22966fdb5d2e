"""The facts that the command line prints about schedules and their due times."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from producer.schedules import clock, runs
from producer.schedules.changes import Changes
from producer.schedules.cron import Cron
from producer.schedules.due import next_due, zone_named
from producer.schedules.spec import Firing, FiringState, Latest, ScheduleSpec
from producer.schedules.store import Store
from rankmill.ledger.jobs import Ledger

_N_NEXT = 3


class ScheduleFacts(BaseModel):
    """A schedule as it is now.

    Attributes:
        next_due: the next due times, in the schedule's zone; empty while it is paused.
        late: the current run has missed its deadline, or will.
    """

    model_config = ConfigDict(frozen=True)

    spec: ScheduleSpec
    next_due: tuple[datetime, ...]
    last: FiringFacts | None
    late: bool
    latest: Latest | None


class FiringFacts(BaseModel):
    """A firing with the id of its job, if it had one."""

    model_config = ConfigDict(frozen=True)

    due: datetime
    state: FiringState
    by_hand: bool
    message: str
    job_id: str | None
    output_uri: str | None
    started_at: datetime | None
    ended_at: datetime | None
    late: bool


def schedule(ledger: Ledger, store: Store, spec: ScheduleSpec) -> ScheduleFacts:
    """Return the facts of a schedule, with its next three due times."""
    zone = zone_named(spec.tz)
    next_dues: list[datetime] = []
    while not spec.paused and len(next_dues) < _N_NEXT:
        after = next_dues[-1] if next_dues else clock.now(ledger)
        due = next_due(Cron.parse(spec.cron), zone, after)
        if due is None:
            break
        next_dues.append(due)
    firings = store.firings(spec.name)
    return ScheduleFacts(
        spec=spec,
        next_due=tuple(due.astimezone(zone) for due in next_dues),
        last=firing(firings[-1]) if firings else None,
        late=spec.name in ledger.late_schedules(),
        latest=runs.read_latest(spec),
    )


def firing(firing: Firing) -> FiringFacts:
    """Return the facts of a firing."""
    return FiringFacts(
        due=firing.due,
        state=firing.state,
        by_hand=firing.by_hand,
        message=firing.message,
        job_id=firing.job_id if firing.output_uri else None,
        output_uri=firing.output_uri,
        started_at=firing.started_at,
        ended_at=firing.ended_at,
        late=firing.late_at is not None,
    )


def changes(planned: Changes) -> dict[str, list[str]]:
    """Return the names of the schedules that are added, changed, removed and left the same."""
    return {
        "added": [spec.name for spec in planned.added],
        "changed": [after.name for _, after in planned.changed],
        "removed": [spec.name for spec in planned.removed],
        "same": [spec.name for spec in planned.same],
    }


def differences(before: ScheduleSpec, after: ScheduleSpec) -> dict[str, tuple[Any, Any]]:
    """Return the fields that change, old and new value; the job's fields by their own names."""
    old, new = _flat(before), _flat(after)
    names = [*old, *(name for name in new if name not in old)]
    pairs = {name: (old.get(name), new.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _flat(spec: ScheduleSpec) -> dict[str, Any]:
    values = spec.model_dump()
    job: dict[str, Any] = values.pop("job")
    return {**values, **job}
