"""Take a step of a firing: one process at a time, retried while that may help, then given up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from producer.schedules import clock, runs
from producer.schedules.spec import Firing, FiringState, ScheduleSpec
from producer.schedules.store import Store
from rankmill.errors import RankmillError
from rankmill.ledger.claims import Claim
from rankmill.ledger.jobs import Ledger
from rankmill.logs import get_logger
from rankmill.settings import Settings

log = get_logger(__name__)


@dataclass(frozen=True)
class Step:
    """The next action on a firing in a given state.

    Attributes:
        claim: the number under which the step is claimed.
        state: the state of a firing that waits for this step.
        act: takes the step and returns the changed firing.
        give_up: returns the firing after the step failed permanently.
    """

    claim: int
    state: FiringState
    act: Callable[[Firing, datetime], Firing]
    give_up: Callable[[Firing, Exception, datetime], Firing]


def take(
    step: Step,
    ledger: Ledger,
    settings: Settings,
    store: Store,
    spec: ScheduleSpec,
    firing: Firing,
) -> Firing:
    """Take the step and return the updated firing.

    The firing is unchanged while another process takes the step, or after a transient fault.
    """
    claim = Claim.take(ledger.claims, firing.job_id, step.claim, settings.claim_s)
    if claim is None:
        return firing
    with claim:
        standing = store.firing(spec.name, firing.due)
        if standing is None or standing.state is not step.state:
            return standing or firing
        now = clock.now(ledger)
        try:
            after = step.act(standing, now)
        except Exception as error:  # a firing that stays open holds up the next
            may_pass = not isinstance(error, RankmillError) or error.transient
            since = standing.ended_at or standing.noted_at
            if may_pass and now - since < timedelta(minutes=spec.grace_min):
                stays = {"schedule": spec.name, "state": standing.state}
                log.warning("step is retried", **stays, exc_info=True)
                return standing
            after = step.give_up(standing, error, now)
        runs.keep_record(after)
        return store.note(after)
