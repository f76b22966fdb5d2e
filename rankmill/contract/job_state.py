"""The states of a job and the legal moves between them.

A job leaves a final state only if it is started again: by `resume`, by `retry-rejects`, or by the
same submission. Three states are never stored: WAITING, BROKER_AWAY and INTERRUPTED describe a
stored running job on which nobody works, or about which nobody can know.
"""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """The state of a job."""

    SUBMITTED = "submitted"  # job.json is written, the plan is not
    PREPARING = "preparing"  # the input is being turned into pairs; then the plan is written
    RUNNING = "running"  # the plan is fixed; shards are being scored
    FINALIZING = "finalizing"  # every shard has its report; the manifest is not written yet
    SUCCEEDED = "succeeded"  # _SUCCESS is there
    SUCCEEDED_WITH_REJECTS = "succeeded with rejects"  # _SUCCESS is there, some rows were rejected
    CANCELLING = "cancelling"  # cancelled.json is there; the last shards are ending
    CANCELLED = "cancelled"  # nobody works on it; what was scored is kept
    FAILED = "failed"  # failure.json says why; what was scored is kept
    WAITING = "waiting for a worker"  # not stored: Redis has its work, no live worker takes it
    BROKER_AWAY = "broker away"  # not stored: Redis does not answer; storage has the progress
    INTERRUPTED = "interrupted"  # not stored: the process of its `rankmill run` is gone

    @property
    def is_final(self) -> bool:
        """Whether the job stays in this state until it is started again."""
        return not LEGAL_MOVES[self]

    @property
    def is_success(self) -> bool:
        """Whether the result is complete."""
        return self in (JobState.SUCCEEDED, JobState.SUCCEEDED_WITH_REJECTS)


_STORED_ENDS = frozenset(
    {
        *(JobState.SUCCEEDED, JobState.SUCCEEDED_WITH_REJECTS),
        *(JobState.CANCELLED, JobState.FAILED),
    }
)
_NOT_STORED = frozenset({JobState.WAITING, JobState.BROKER_AWAY, JobState.INTERRUPTED})

LEGAL_MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.SUBMITTED: _NOT_STORED
    | {JobState.PREPARING, JobState.RUNNING, JobState.CANCELLED, JobState.FAILED},
    JobState.PREPARING: _NOT_STORED
    | {JobState.RUNNING, JobState.CANCELLING, JobState.CANCELLED, JobState.FAILED},
    # Also straight to the end: another cluster may have finished a job that runs here.
    JobState.RUNNING: _NOT_STORED | _STORED_ENDS | {JobState.FINALIZING, JobState.CANCELLING},
    JobState.CANCELLING: frozenset({JobState.CANCELLED}),
    JobState.CANCELLED: frozenset(),
    JobState.FINALIZING: _NOT_STORED | _STORED_ENDS,
    JobState.SUCCEEDED: frozenset(),
    JobState.SUCCEEDED_WITH_REJECTS: frozenset(),
    JobState.FAILED: frozenset(),
    # A worker came, Redis is back, or the job ended meanwhile.
    JobState.WAITING: frozenset(JobState) - {JobState.SUBMITTED, JobState.WAITING},
    JobState.BROKER_AWAY: frozenset(JobState) - {JobState.SUBMITTED, JobState.BROKER_AWAY},
    JobState.INTERRUPTED: frozenset(),
}
