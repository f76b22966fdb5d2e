"""The states of a job and the moves between them.

A final state is left only by starting over: `resume`, `retry-rejects` and the same job submitted
again put it back to running. Three states are seen and never stored: each is what a running job is
called while nobody works on it, or nobody can say.
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
    WAITING = "waiting for a worker"  # seen: Redis has its work, and no live worker takes it
    BROKER_AWAY = "broker away"  # seen: Redis does not answer; storage says how far it came
    INTERRUPTED = "interrupted"  # seen: the process of its `rankmill run` is gone

    @property
    def is_final(self) -> bool:
        """Whether the job stays as it is until somebody starts it over."""
        return not LEGAL_MOVES[self]

    @property
    def is_success(self) -> bool:
        return self in (JobState.SUCCEEDED, JobState.SUCCEEDED_WITH_REJECTS)


_STORED_ENDS = frozenset(
    {
        *(JobState.SUCCEEDED, JobState.SUCCEEDED_WITH_REJECTS),
        *(JobState.CANCELLED, JobState.FAILED),
    }
)
_SEEN = frozenset({JobState.WAITING, JobState.BROKER_AWAY, JobState.INTERRUPTED})

LEGAL_MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.SUBMITTED: _SEEN
    | {JobState.PREPARING, JobState.RUNNING, JobState.CANCELLED, JobState.FAILED},
    JobState.PREPARING: _SEEN
    | {JobState.RUNNING, JobState.CANCELLING, JobState.CANCELLED, JobState.FAILED},
    # Straight to the end too: another cluster may have finished what this one thought running.
    JobState.RUNNING: _SEEN | _STORED_ENDS | {JobState.FINALIZING, JobState.CANCELLING},
    JobState.CANCELLING: frozenset({JobState.CANCELLED}),
    JobState.CANCELLED: frozenset(),
    JobState.FINALIZING: _SEEN | _STORED_ENDS,
    JobState.SUCCEEDED: frozenset(),
    JobState.SUCCEEDED_WITH_REJECTS: frozenset(),
    JobState.FAILED: frozenset(),
    # A worker came, or Redis is back, or it ended meanwhile.
    JobState.WAITING: frozenset(JobState) - {JobState.SUBMITTED, JobState.WAITING},
    JobState.BROKER_AWAY: frozenset(JobState) - {JobState.SUBMITTED, JobState.BROKER_AWAY},
    JobState.INTERRUPTED: frozenset(),
}
