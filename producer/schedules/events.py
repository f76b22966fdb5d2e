"""Send events of schedules to the webhook: a run is late, was held, or could not begin."""

from __future__ import annotations

from datetime import datetime

from producer.schedules.spec import Firing, FiringState, due_key
from producer.schedules.store import Store
from rankmill.ledger.counts import JobCounts
from rankmill.notify import Event, EventKind, counted, event_id_of, notify


def fields_of(firing: Firing) -> dict[str, str]:
    """Return the fields of a log event: schedule and due time."""
    return {"schedule": firing.schedule, "due": due_key(firing.due)}


def is_noted(event: Event, store: Store) -> bool:
    """Return whether an event belongs to a due time for which no job could be submitted."""
    if event.schedule is None or event.kind != "failed":
        return False
    return any(
        event.event_id == event_id_of(event.kind, event.schedule, due_key(firing.due))
        and event.job_id == firing.job_id
        for firing in store.firings(event.schedule)
        if firing.state in (FiringState.STARTING, FiringState.NOT_SUBMITTED)
    )


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
