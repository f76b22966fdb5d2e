"""All that a job's page shows, gathered from its output before anything is drawn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from rankmill.contract.drift import Drift
from rankmill.contract.job import JobRecord
from rankmill.contract.job_state import JobState
from rankmill.contract.plan import Plan
from rankmill.contract.results import Failure, Manifest, ShardReport
from rankmill.output.output import Output
from rankmill.report.rejects import RejectedRow, examples
from rankmill.report.totals import Tally


@dataclass(frozen=True)
class JobFacts:
    """A job as its page shows it.

    Attributes:
        ended_at: when it was done or failed, else when its last shard was, if any says so.
        rejected: a few rows of each reason.
        drift: from an earlier run, where it has been compared with one.
    """

    record: JobRecord
    state: JobState
    plan: Plan | None
    failure: Failure | None
    tally: Tally
    ended_at: datetime | None
    rejected: dict[str, list[RejectedRow]]
    manifest: Manifest | None
    drift: Drift | None

    @property
    def wall_s(self) -> float | None:
        if self.ended_at is None:
            return None
        return (self.ended_at - self.record.submitted_at).total_seconds()


def gather(
    output: Output,
    record: JobRecord,
    reports: Iterable[ShardReport],
    manifest: Manifest | None,
) -> JobFacts:
    """Read a job's output; of the shard reports one after the other, and none is kept."""
    tally = Tally()
    for report in reports:
        tally.add(report)
    plan, failure = output.read_plan(), output.read_failure()
    rejected = (
        examples(output, plan.columns, tally.rejecting, tally.rejects) if plan is not None else {}
    )
    return JobFacts(
        record=record,
        state=_state(output, manifest),
        plan=plan,
        failure=failure,
        tally=tally,
        ended_at=_ended_at(manifest, failure, tally),
        rejected=rejected,
        manifest=manifest,
        drift=output.read_drift(),
    )


def _state(output: Output, manifest: Manifest | None) -> JobState:
    """A manifest is written just before the job is marked as done."""
    if manifest is None:
        return output.state()
    return JobState.SUCCEEDED_WITH_REJECTS if manifest.n_rejected else JobState.SUCCEEDED


def _ended_at(manifest: Manifest | None, failure: Failure | None, tally: Tally) -> datetime | None:
    if manifest is not None:
        return manifest.finished_at
    if failure is not None:
        return failure.failed_at
    return None if tally.last_at is None else datetime.fromtimestamp(tally.last_at, UTC)
