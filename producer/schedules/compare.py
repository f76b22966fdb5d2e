"""Compare a run that succeeded with the run that `latest` names, then publish it as `latest`.

A failed gate holds the run, and `latest` stays.
"""

from __future__ import annotations

from datetime import datetime

from producer.quality.drift.diff import diff
from producer.quality.drift.gate import parse
from producer.quality.qrels import read_qrels
from producer.schedules import runs
from producer.schedules.events import fields_of, send
from producer.schedules.spec import Firing, FiringState, ScheduleSpec
from producer.schedules.step import Step, take
from producer.schedules.store import Store
from rankmill.ledger.claims import COMPARISON
from rankmill.ledger.jobs import Ledger
from rankmill.logs import get_logger
from rankmill.output.output import Output
from rankmill.report import try_report
from rankmill.settings import Settings

log = get_logger(__name__)


def compare(
    ledger: Ledger, settings: Settings, store: Store, spec: ScheduleSpec, firing: Firing
) -> Firing:
    """Compare and publish a firing that is COMPARING, and return its new state."""

    def give_up(firing: Firing, error: Exception, now: datetime) -> Firing:
        # With a gate the run is held, for the gate has nothing to measure.
        why = f"it could not be compared: {error}"
        log.warning("run not compared", **fields_of(firing), why=why)
        if spec.fail_if:
            send("gate", firing, now, "it could not be compared; the schedule's history says why")
            return firing.became(FiringState.HELD, why)
        return _published(spec, firing, "; ".join(filter(None, (firing.message, why))), now)

    def act(firing: Firing, now: datetime) -> Firing:
        return _compared(spec, firing, now)

    step = Step(COMPARISON, FiringState.COMPARING, act, give_up)
    return take(step, ledger, settings, store, spec, firing)


def _compared(spec: ScheduleSpec, firing: Firing, now: datetime) -> Firing:
    latest = runs.read_latest(spec)
    if latest is not None and latest.due < firing.due:
        assert firing.output_uri is not None
        run = Output(firing.output_uri)
        gates = [parse(expression) for expression in spec.fail_if]
        qrels = read_qrels(spec.qrels) if spec.qrels else None
        drift = diff(Output(latest.output_uri), run, gates=gates, qrels=qrels)
        run.write_drift(drift)
        try_report(run, drift.new.job_id)
        if drift.gate is not None and not drift.gate.passed:
            send("gate", firing, now, drift.gate.message)
            log.error("gate failed", **fields_of(firing), why=drift.gate.message)
            return firing.became(FiringState.HELD, drift.gate.message)
    return _published(spec, firing, firing.message, now)


def _published(spec: ScheduleSpec, firing: Firing, message: str, now: datetime) -> Firing:
    runs.publish_latest(spec, firing, now)
    return firing.became(FiringState.SUCCEEDED, message)
