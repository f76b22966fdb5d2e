"""A run whose job succeeded is held against the one that `latest` names; then `latest` moves on.

Or it does not, where a gate says so. One process compares, however many come to it.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from producer.drift.diff import diff
from producer.drift.gate import parse
from producer.schedules import clock, runs
from producer.schedules.events import fields_of, tell
from producer.schedules.spec import Firing, FiringState, Latest, ScheduleSpec
from producer.schedules.store import Store
from rankmill.claim import COMPARISON, Claim
from rankmill.drift import Drift
from rankmill.errors import RankmillError
from rankmill.ledger import Ledger
from rankmill.logs import get_logger
from rankmill.output import Output
from rankmill.report import report_anew
from rankmill.settings import Settings

log = get_logger(__name__)


def compare(
    ledger: Ledger, settings: Settings, store: Store, spec: ScheduleSpec, firing: Firing
) -> Firing:
    """Compare and publish a firing that is COMPARING; what it then is.

    It stays so while another compares it, and where a fault that may pass kept it from it.
    """
    claim = Claim.take(ledger.claims, firing.job_id, COMPARISON, settings.claim_s)
    if claim is None:
        return firing
    with claim:
        standing = store.firing(spec.name, firing.due)
        if standing is None or standing.state is not FiringState.COMPARING:
            return standing or firing
        now = clock.now(ledger)
        try:
            settled = _settled(spec, standing, now)
        except Exception as error:  # nothing may leave it COMPARING for ever, which holds up others
            ended_at = standing.ended_at or now
            may_pass = not isinstance(error, RankmillError) or error.transient
            if may_pass and now - ended_at < timedelta(minutes=spec.grace_min):
                log.warning("run is compared again", schedule=spec.name, exc_info=True)
                return standing
            settled = _without_comparison(spec, standing, error, now)
        runs.keep_record(settled)
        return store.note(settled)


def _settled(spec: ScheduleSpec, firing: Firing, now: datetime) -> Firing:
    latest = runs.read_latest(spec)
    if latest is not None and latest.due < firing.due:
        drift = _drift(spec, firing, latest)
        run = Output(drift.new.output_uri)
        run.write_drift(drift)
        report_anew(run, drift.new.job_id)
        if drift.gate is not None and not drift.gate.passed:
            tell("gate", firing, now, drift.gate.message)
            log.error("gate failed", **fields_of(firing), why=drift.gate.message)
            return firing.became(FiringState.HELD, drift.gate.message)
    return _published(spec, firing, firing.message, now)


def _drift(spec: ScheduleSpec, firing: Firing, latest: Latest) -> Drift:
    assert firing.output_uri is not None
    gates = [parse(expression) for expression in spec.fail_if]
    return diff(Output(latest.output_uri), Output(firing.output_uri), gates=gates)


def _without_comparison(
    spec: ScheduleSpec, firing: Firing, error: Exception, now: datetime
) -> Firing:
    """With a gate it is held, for the gate has nothing to measure; else it is published."""
    said = f"it could not be compared: {error}"
    log.warning("run is not compared", **fields_of(firing), why=said)
    if spec.fail_if:
        tell("gate", firing, now, "it could not be compared; the schedule's history says why")
        return firing.became(FiringState.HELD, said)
    return _published(spec, firing, "; ".join(filter(None, (firing.message, said))), now)


def _published(spec: ScheduleSpec, firing: Firing, message: str, now: datetime) -> Firing:
    runs.publish_latest(spec, firing, now)
    return firing.became(FiringState.SUCCEEDED, message)
