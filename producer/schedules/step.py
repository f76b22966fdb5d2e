"""A step of a firing: taken by one process at a time, again while it may help, then given up."""

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
    """
    Attributes:
        claim: the number under which the step is held.
        state: that of a firing which waits for it.
        act: what the firing becomes.
        give_up: what it becomes where that failed for good.
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
    """Take a firing's step; what it then is.

    It stays as it is while another takes the step, and where a fault that may pass kept it from it.
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
        except Exception as error:  # nothing may stay open for ever, which holds up others
            may_pass = not isinstance(error, RankmillError) or error.transient
            since = standing.ended_at or standing.noted_at
            if may_pass and now - since < timedelta(minutes=spec.grace_min):
                stays = {"schedule": spec.name, "state": standing.state}
                log.warning("step is taken again", **stays, exc_info=True)
                return standing
            after = step.give_up(standing, error, now)
        runs.keep_record(after)
        return store.note(after)
