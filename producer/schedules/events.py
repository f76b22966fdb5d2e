"""What a schedule tells the outside: that a run will be late, was held, or could not begin."""

from __future__ import annotations

from datetime import datetime

from producer.schedules.spec import Firing, due_key
from rankmill.ledger.jobs import JobCounts
from rankmill.notify import Event, EventKind, counted, event_id_of, notify


def fields_of(firing: Firing) -> dict[str, str]:
    """Of a log event: which schedule, which due time."""
    return {"schedule": firing.schedule, "due": due_key(firing.due)}


def tell(
    kind: EventKind,
    firing: Firing,
    now: datetime,
    message: str,
    counts: JobCounts | None = None,
) -> None:
    """Have it told to the webhook, once for a due time however often it is noticed.

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
