"""Follow a run of a schedule to its end, and watch its deadline."""

from __future__ import annotations

from datetime import datetime

from producer.schedules import runs
from producer.schedules.due import next_time, zone_named
from producer.schedules.events import fields_of, send
from producer.schedules.spec import Firing, FiringState, ScheduleSpec, due_key
from rankmill.contract.job_state import JobState
from rankmill.errors import JobUnknown
from rankmill.ledger.counts import JobCounts
from rankmill.ledger.jobs import Ledger
from rankmill.logs import get_logger
from rankmill.output.output import Output

log = get_logger(__name__)


def follow(ledger: Ledger, spec: ScheduleSpec, firing: Firing, now: datetime) -> Firing:
    """Check a RUNNING firing once and return its new state."""
    assert firing.output_uri is not None
    output = Output(firing.output_uri)
    counts = ledger.counts(firing.job_id)
    state, message = _job_state(output, counts)
    firing = _with_deadline(ledger, spec, firing, counts, now)
    if not state.is_final:
        return firing
    if state.is_success:
        manifest = output.read_manifest()
        n_rejected = manifest.n_rejected if manifest else 0
        remark = f"{n_rejected:,} rows were rejected" if n_rejected else ""
        ended = firing.became(FiringState.COMPARING, remark, ended_at=now)
    else:
        end = FiringState.CANCELLED if state is JobState.CANCELLED else FiringState.FAILED
        ended = firing.became(end, message, ended_at=now)
        log.error("run ended", **fields_of(firing), state=end, why=message)
    ledger.note_late(spec.name, None)
    runs.keep_record(ended)
    return ended


def reopened(ledger: Ledger, firing: Firing) -> Firing:
    """Return a failed or cancelled firing as RUNNING if somebody resumed its job."""
    counts = ledger.counts(firing.job_id)
    if counts is None or counts.state.is_final or counts.state is JobState.CANCELLING:
        return firing
    return firing.became(FiringState.RUNNING, ended_at=None)


def _job_state(output: Output, counts: JobCounts | None) -> tuple[JobState, str]:
    """Return the job's state and message: from storage if it has ended, else from Redis."""
    if not output.has_ended():
        if counts is not None:
            return counts.state, counts.message
        if output.read_job() is None:
            return JobState.FAILED, f"{output.uri} is gone"
    try:
        state = output.state()
    except JobUnknown as error:
        return JobState.FAILED, str(error)
    failure = output.read_failure()
    return state, failure.message if failure else ""


def _with_deadline(
    ledger: Ledger, spec: ScheduleSpec, firing: Firing, counts: JobCounts | None, now: datetime
) -> Firing:
    """Mark the firing as late, once, if it will miss its deadline."""
    if spec.deadline is None or firing.late_at is not None:
        return firing
    deadline = next_time(spec.deadline, zone_named(spec.tz), firing.due)
    eta = _eta(firing, counts, now)
    if max(now, eta) <= deadline:
        return firing
    when = "has passed" if now > deadline else f"will pass: the run ends about {eta:%H:%M} UTC"
    message = f"deadline {spec.deadline} {when}"
    log.warning("run misses its deadline", **fields_of(firing), why=message)
    ledger.note_late(spec.name, due_key(firing.due))
    send("deadline", firing, now, message, counts)
    return firing.model_copy(update={"late_at": now})


def _eta(firing: Firing, counts: JobCounts | None, now: datetime) -> datetime:
    """Estimate when a run ends from its rate so far; return `now` if no rate is known."""
    if firing.started_at is None or counts is None or counts.n_pairs_done == 0:
        return now
    n_left = counts.n_rows - counts.n_pairs_done
    return now + (now - firing.started_at) * (n_left / counts.n_pairs_done)
