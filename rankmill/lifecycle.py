"""The states of a job and the moves between them.

A final state is left only by starting over: `resume`, `retry-rejects` and the same job submitted
again put it back to running.
"""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """Where a job stands."""

    SUBMITTED = "submitted"  # job.json is written, the plan is not
    PREPARING = "preparing"  # the input is being turned into pairs; then the plan is written
    RUNNING = "running"  # the plan is fixed; shards are being scored
    FINALIZING = "finalizing"  # every shard has its report; the manifest is not written yet
    SUCCEEDED = "succeeded"  # _SUCCESS stands
    SUCCEEDED_WITH_REJECTS = "succeeded with rejects"  # _SUCCESS stands, some rows were rejected
    CANCELLING = "cancelling"  # cancelled.json stands; the last shards are being let go
    CANCELLED = "cancelled"  # nobody works on it; what was scored is kept
    FAILED = "failed"  # failure.json says why; what was scored is kept

    @property
    def is_final(self) -> bool:
        return not LEGAL_MOVES[self]

    @property
    def is_success(self) -> bool:
        return self in (JobState.SUCCEEDED, JobState.SUCCEEDED_WITH_REJECTS)


LEGAL_MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.SUBMITTED: frozenset(
        {JobState.PREPARING, JobState.RUNNING, JobState.CANCELLED, JobState.FAILED}
    ),
    JobState.PREPARING: frozenset(
        {JobState.RUNNING, JobState.CANCELLING, JobState.CANCELLED, JobState.FAILED}
    ),
    # Straight to the end too: another cluster may have finished what this one thought running.
    JobState.RUNNING: frozenset(JobState)
    - {JobState.SUBMITTED, JobState.PREPARING, JobState.RUNNING},
    JobState.CANCELLING: frozenset({JobState.CANCELLED}),
    JobState.CANCELLED: frozenset(),
    JobState.FINALIZING: frozenset(
        {
            *(JobState.SUCCEEDED, JobState.SUCCEEDED_WITH_REJECTS),
            *(JobState.CANCELLED, JobState.FAILED),
        }
    ),
    JobState.SUCCEEDED: frozenset(),
    JobState.SUCCEEDED_WITH_REJECTS: frozenset(),
    JobState.FAILED: frozenset(),
}
