"""Events for the webhook: a job has ended, a gate failed, a deadline will be missed.

Each event is its own message on the control queue, so that a slow or dead webhook delays no job.
It is delivered at least once. A repeat has the same `event_id`, so that a receiver can deduplicate.
"""

from __future__ import annotations

import hashlib
import time
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from rankmill.broker import send_notify
from rankmill.contract.base import Contract, JobId
from rankmill.contract.job_state import JobState
from rankmill.contract.results import Failure, Manifest
from rankmill.errors import EntryBroken, InputError, StorageRefused
from rankmill.ledger.counts import JobCounts
from rankmill.ledger.jobs import Ledger
from rankmill.output.output import Output
from rankmill.settings import settings

# It goes into a header of the request.
EventId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
EventKind = Literal["succeeded", "failed", "gate", "deadline"]

_MESSAGE_CHARS = 500
_POLL_S = 0.1
_REASON_IN_REDIS = "rankmill status shows the reason: it may quote the input"


class EventCounts(Contract):
    """The progress of a job; `n_done` of its rows were scored or rejected."""

    n_rows: int
    n_done: int
    n_rejected: int
    n_tokens: int


class Event(Contract):
    """The body of a webhook request; it contains no text of a row and no secret.

    Attributes:
        event_id: the same for every delivery of this event, and for no other event.
        state: the job's state, or None if it had not begun.
        schedule: the schedule that the job runs for, if any.
    """

    event_id: EventId
    kind: EventKind
    occurred_at: datetime
    job_id: JobId
    state: JobState | None
    output_uri: str
    schedule: str | None = None
    message: Annotated[str, AfterValidator(lambda text: text[:_MESSAGE_CHARS])] = ""
    counts: EventCounts | None = None


class NotifyMessage(Contract):
    """The arguments of `rankmill.notify`."""

    event: Event


def notify(event: Event) -> None:
    """Send an event to the webhook of the settings; do nothing without one.

    Raises:
        BrokerUnavailable: Redis does not answer; call again.
    """
    if settings().webhook_url is not None:
        shown = f"{event.kind}, job {event.job_id}"
        send_notify(event.model_dump(mode="json"), event.event_id, shown)


def event_id_of(*facts: str) -> str:
    """Return the id of the event with these facts, the same wherever it is made."""
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:32]


def end_event(output: Output, counts: JobCounts | None) -> Event | None:
    """Return the event for the end of an output's job; None if it runs or was cancelled."""
    manifest = output.read_manifest() if output.is_success() else None
    if manifest is not None:
        return succeeded_event(manifest)
    failure = None if output.is_success() or output.is_cancelled() else output.read_failure()
    return None if failure is None else failed_event(failure, output.uri, counts)


def succeeded_event(manifest: Manifest) -> Event:
    """Return the event for a finished job."""
    rejects = manifest.n_rejected > 0
    return Event(
        event_id=event_id_of(manifest.job_id, "succeeded", manifest.finished_at.isoformat()),
        kind="succeeded",
        occurred_at=manifest.finished_at,
        job_id=manifest.job_id,
        state=JobState.SUCCEEDED_WITH_REJECTS if rejects else JobState.SUCCEEDED,
        output_uri=manifest.spec.output_uri,
        counts=EventCounts(
            n_rows=manifest.n_rows,
            n_done=manifest.n_scored + manifest.n_rejected,
            n_rejected=manifest.n_rejected,
            n_tokens=manifest.n_tokens,
        ),
    )


def failed_event(failure: Failure, output_uri: str, counts: JobCounts | None) -> Event:
    """Return the event for a failed job.

    Its message is the failure's own only if that cannot contain a row's text.
    """
    message = failure.message
    if failure.quotes_input:  # the input was read here, so this host sees the output
        place = Output(output_uri).control_uri
        message = f"the reason is in {place}/failure.json: it may quote the input"
    return Event(
        event_id=event_id_of(failure.job_id, "failed", failure.failed_at.isoformat()),
        kind="failed",
        occurred_at=failure.failed_at,
        job_id=failure.job_id,
        state=JobState.FAILED,
        output_uri=output_uri,
        message=message,
        counts=None if counts is None else counted(counts),
    )


def as_recorded(event: Event, ledger: Ledger) -> Event | None:
    """Return an event as its job's records have it; None if they do not have it.

    Anyone who may send work may send a forged event. So fields come from storage or Redis, not from
    the message.

    Raises:
        StorageUnavailable: storage does not answer.
        BrokerUnavailable: Redis does not answer.
    """
    counts = _counts_at(event, ledger)
    output = Output(event.output_uri)
    try:
        is_held = bool(event.output_uri) and output.holds(event.job_id)
        recorded = end_event(output, counts) if is_held else None
    except (InputError, StorageRefused):  # this host cannot read the output
        is_held, recorded = False, None
    if event.kind in ("gate", "deadline"):
        return event if is_held or counts is not None else None
    if recorded is not None:
        return recorded if recorded.event_id == event.event_id else None
    is_state = counts is not None and counts.state.startswith(event.kind)
    if counts is None or not is_state or counts.state != event.state:
        return None
    # Only Redis has a failure that could not be written, or a result that this host does not see.
    kept = event.message if event.message == counts.message[:_MESSAGE_CHARS] else _REASON_IN_REDIS
    return event.model_copy(update={"message": kept, "counts": counted(counts)})


def _counts_at(event: Event, ledger: Ledger) -> JobCounts | None:
    """Return the counts of an event's job, if Redis knows the job at that output."""
    try:
        counts = ledger.counts(event.job_id)
    except EntryBroken:
        return None
    return counts if counts is not None and counts.output_uri == event.output_uri else None


def delivered_turn(event: Event) -> str:
    """Return the name of the turn that is taken in Redis once an event has been delivered."""
    # The spelling of a Redis key, which other versions share.
    return f"told:{event.event_id}"


def wait_until_delivered(ledger: Ledger, event: Event, timeout_s: float) -> bool:
    """Wait until an event is delivered and return whether it was, before its Redis is stopped."""
    deadline = time.monotonic() + timeout_s
    while not ledger.had_turn(delivered_turn(event)):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def counted(counts: JobCounts) -> EventCounts:
    """Return the counts of a job as an event carries them."""
    return EventCounts(
        n_rows=counts.n_rows,
        n_done=counts.n_pairs_done,
        n_rejected=counts.n_rejected,
        n_tokens=counts.n_tokens,
    )
