"""Read the facts of a job's page from its output, before anything is drawn."""

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
from rankmill.report.extras import Extras
from rankmill.report.moved import ShownQuery, shown_queries
from rankmill.report.rejects import RejectedRow, examples
from rankmill.report.totals import Tally


@dataclass(frozen=True)
class JobFacts:
    """The facts of a job that its page shows.

    Attributes:
        ended_at: the end of the job, else of its last shard; None if not recorded.
        rejected: a few rows of each reason.
        moved: the queries that moved most, if the input has an order.
        drift: the comparison with an earlier run, if there is one.
    """

    output_uri: str
    record: JobRecord
    state: JobState
    plan: Plan | None
    failure: Failure | None
    tally: Tally
    ended_at: datetime | None
    rejected: dict[str, list[RejectedRow]]
    manifest: Manifest | None
    drift: Drift | None
    moved: list[ShownQuery]
    extras: Extras

    @property
    def cost(self) -> float | None:
        """The price of the time that devices ran shards; None without a price."""
        price = self.extras.price_per_hour
        return None if price is None else price * self.tally.wall_s / 3600

    @property
    def wall_s(self) -> float | None:
        """Seconds from the submission to `ended_at`."""
        if self.ended_at is None:
            return None
        return (self.ended_at - self.record.submitted_at).total_seconds()


def gather(
    output: Output,
    record: JobRecord,
    reports: Iterable[ShardReport],
    manifest: Manifest | None,
    extras: Extras | None = None,
) -> JobFacts:
    """Read a job's output; shard reports are added up one by one, and none is kept."""
    tally = Tally()
    for report in reports:
        tally.add(report)
    plan, failure = output.read_plan(), output.read_failure()
    extras = extras or Extras()
    rejected, moved = {}, []
    if plan is not None:
        moved = shown_queries(plan, tally.changes.moved)
        rejected = examples(output, plan.columns, tally.rejecting, tally.rejects)
    if manifest is None:
        state = output.state()
    else:  # it is written just before the job is marked as done
        with_rejects = manifest.n_rejected > 0
        state = JobState.SUCCEEDED_WITH_REJECTS if with_rejects else JobState.SUCCEEDED
    if manifest is not None:
        ended_at: datetime | None = manifest.finished_at
    elif failure is not None:
        ended_at = failure.failed_at
    else:
        ended_at = None if tally.last_at is None else datetime.fromtimestamp(tally.last_at, UTC)
    return JobFacts(
        output_uri=output.uri,
        record=record,
        state=state,
        plan=plan,
        failure=failure,
        tally=tally,
        ended_at=ended_at,
        rejected=rejected,
        manifest=manifest,
        drift=extras.compared.drift if extras.compared else output.read_drift(),
        moved=moved,
        extras=extras,
    )
