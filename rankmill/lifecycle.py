"""The states of a job and the moves between them."""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """Where a job stands."""

    SUBMITTED = "submitted"  # job.json is written, the plan is not
    RUNNING = "running"  # the plan is fixed; shards are being scored
    FINALIZING = "finalizing"  # every shard has its report; the manifest is not written yet
    SUCCEEDED = "succeeded"  # _SUCCESS stands
    SUCCEEDED_WITH_REJECTS = "succeeded with rejects"  # _SUCCESS stands, some rows were rejected
    FAILED = "failed"  # failure.json says why; what was scored is kept

    @property
    def is_final(self) -> bool:
        return not LEGAL_MOVES[self]

    @property
    def is_success(self) -> bool:
        return self in (JobState.SUCCEEDED, JobState.SUCCEEDED_WITH_REJECTS)


LEGAL_MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.SUBMITTED: frozenset({JobState.RUNNING, JobState.FAILED}),
    JobState.RUNNING: frozenset({JobState.FINALIZING, JobState.FAILED}),
    JobState.FINALIZING: frozenset(
        {JobState.SUCCEEDED, JobState.SUCCEEDED_WITH_REJECTS, JobState.FAILED}
    ),
    JobState.SUCCEEDED: frozenset(),
    JobState.SUCCEEDED_WITH_REJECTS: frozenset(),
    JobState.FAILED: frozenset(),
}
