"""A run whose job succeeded is held against the one that `latest` names; then `latest` moves on.

Or it does not, where a gate says so.
"""

from __future__ import annotations

from datetime import datetime

from producer.quality.drift.diff import diff
from producer.quality.drift.gate import parse
from producer.quality.qrels import read_qrels
from producer.schedules import runs
from producer.schedules.events import fields_of, tell
from producer.schedules.spec import Firing, FiringState, Latest, ScheduleSpec
from producer.schedules.step import Step, take
from producer.schedules.store import Store
from rankmill.contract.drift import Drift
from rankmill.ledger.claims import COMPARISON
from rankmill.ledger.jobs import Ledger
from rankmill.logs import get_logger
from rankmill.output.output import Output
from rankmill.report import report_anew
from rankmill.settings import Settings

log = get_logger(__name__)


def compare(
    ledger: Ledger, settings: Settings, store: Store, spec: ScheduleSpec, firing: Firing
) -> Firing:
    """Compare and publish a firing that is COMPARING; what it then is."""

    def act(firing: Firing, now: datetime) -> Firing:
        return _settled(spec, firing, now)

    def give_up(firing: Firing, error: Exception, now: datetime) -> Firing:
        return _without_comparison(spec, firing, error, now)

    step = Step(COMPARISON, FiringState.COMPARING, act, give_up)
    return take(step, ledger, settings, store, spec, firing)


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
    qrels = read_qrels(spec.qrels) if spec.qrels else None
    return diff(Output(latest.output_uri), Output(firing.output_uri), gates=gates, qrels=qrels)


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
