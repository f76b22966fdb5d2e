"""What the command line says of schedules and their due times."""

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
        next_due: in its zone; empty while it is paused.
        late: its run has missed its deadline, or will.
    """

    model_config = ConfigDict(frozen=True)

    spec: ScheduleSpec
    next_due: tuple[datetime, ...]
    last: FiringFacts | None
    late: bool
    latest: Latest | None


class FiringFacts(BaseModel):
    """A firing with the id of its job, where there was one."""

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
    firings = store.firings(spec.name)
    return ScheduleFacts(
        spec=spec,
        next_due=() if spec.paused else tuple(_next(spec, clock.now(ledger))),
        last=firing(firings[-1]) if firings else None,
        late=spec.name in ledger.late_schedules(),
        latest=runs.read_latest(spec),
    )


def firing(firing: Firing) -> FiringFacts:
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
    return {
        "added": [spec.name for spec in planned.added],
        "changed": [after.name for _, after in planned.changed],
        "removed": [spec.name for spec in planned.removed],
        "same": [spec.name for spec in planned.same],
    }


def differences(before: ScheduleSpec, after: ScheduleSpec) -> dict[str, tuple[Any, Any]]:
    """The fields that change, those of the job by their own names."""
    old, new = _flat(before), _flat(after)
    return {name: (old[name], new[name]) for name in old if old[name] != new[name]}


def _flat(spec: ScheduleSpec) -> dict[str, Any]:
    values = spec.model_dump()
    job: dict[str, Any] = values.pop("job")
    return {**values, **job}


def _next(spec: ScheduleSpec, after: datetime) -> list[datetime]:
    cron, zone = Cron.parse(spec.cron), zone_named(spec.tz)
    found: list[datetime] = []
    while len(found) < _N_NEXT:
        due = next_due(cron, zone, found[-1] if found else after)
        if due is None:
            break
        found.append(due)
    return [due.astimezone(zone) for due in found]
