"""Send events of schedules to the webhook: a run is late, was held, or could not begin."""

from __future__ import annotations

from datetime import datetime

from producer.schedules.spec import Firing, due_key
from rankmill.ledger.counts import JobCounts
from rankmill.notify import Event, EventKind, counted, event_id_of, notify


def fields_of(firing: Firing) -> dict[str, str]:
    """Return the fields of a log event: schedule and due time."""
    return {"schedule": firing.schedule, "due": due_key(firing.due)}


def send(
    kind: EventKind,
    firing: Firing,
    now: datetime,
    message: str,
    counts: JobCounts | None = None,
) -> None:
    """Send an event to the webhook, once for each kind and due time.

    Raises:
        BrokerUnavailable: Redis does not answer.
    """
    notify(
        Event(
            event_id=event_id_of(kind, firing.schedule, due_key(firing.due)),
            kind=kind,
            occurred_at=now,
            job_id=firing.job_id,
            state=counts.state if counts else None,
            output_uri=firing.output_uri or "",
            schedule=firing.schedule,
            message=message,
            counts=counted(counts) if counts else None,
        )
    )
