"""Submit the job of a due time: exactly one, however many processes try."""

from __future__ import annotations

from datetime import datetime

from producer.jobs.check import check
from producer.jobs.submit import submit_checked
from producer.schedules import runs
from producer.schedules.events import fields_of, send
from producer.schedules.spec import Firing, FiringState, Latest, ScheduleSpec
from producer.schedules.step import Step, take
from producer.schedules.store import Store
from rankmill.contract.job_id import job_id_for
from rankmill.errors import RankmillError
from rankmill.ledger.claims import FIRING
from rankmill.ledger.jobs import Ledger
from rankmill.logs import get_logger
from rankmill.settings import Settings

log = get_logger(__name__)


def start(
    ledger: Ledger, settings: Settings, store: Store, spec: ScheduleSpec, firing: Firing
) -> Firing:
    """Submit the job of a firing that is STARTING, and return its new state."""

    def act(firing: Firing, now: datetime) -> Firing:
        job_spec = runs.job_spec(spec, firing.due)
        checked = check(job_spec, job_id=firing.job_id)
        # Of the options as they were given, and of the files with their sizes and versions.
        fingerprint = job_id_for(job_spec.model_copy(update={"output_uri": "-"}), checked.files)
        if spec.unless_unchanged and not firing.by_hand:
            before = _last_done(store, spec)
            if before is not None and before.fingerprint == fingerprint:
                message = f"the input is that of {before.output_uri}"
                return firing.became(
                    FiringState.UNCHANGED, message, fingerprint=fingerprint, ended_at=now
                )
        handle = submit_checked(checked)
        return firing.became(
            FiringState.RUNNING,
            output_uri=handle.output.uri,
            fingerprint=fingerprint,
            started_at=now,
        )

    def give_up(firing: Firing, error: Exception, now: datetime) -> Firing:
        log.error("run not submitted", **fields_of(firing), why=str(error))
        may_quote_input = not isinstance(error, RankmillError) or error.quotes_input
        why = "no job was made; the schedule's history says why" if may_quote_input else str(error)
        send("failed", firing, now, why)
        return firing.became(FiringState.NOT_SUBMITTED, str(error), ended_at=now)

    step = Step(FIRING, FiringState.STARTING, act, give_up)
    return take(step, ledger, settings, store, spec, firing)


def _last_done(store: Store, spec: ScheduleSpec) -> Firing | Latest | None:
    """Return the newest run whose job succeeded, whether a gate held it or not."""
    done = (FiringState.SUCCEEDED, FiringState.HELD)
    found = [firing for firing in store.firings(spec.name) if firing.state in done]
    return found[-1] if found else runs.read_latest(spec)
