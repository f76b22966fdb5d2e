"""The live counts of a job, as Redis holds them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rankmill.contract.job_state import JobState


@dataclass(frozen=True)
class JobCounts:
    """The counts of a job in Redis; `n_pairs_done` and `n_tokens` include running shards.

    Times are by Redis's clock, in seconds. They are None if nothing happened yet or an earlier
    release opened the job.

    Attributes:
        n_pairs_before: pairs that were done when the job was opened.
        started_at: when its first shard was started.
        progress_at: when a pair was last scored, or a shard last started.
        state_at: when it moved to its state, if it ever moved.
    """

    job_id: str
    state: JobState
    output_uri: str
    n_shards: int
    n_shards_done: int
    n_rows: int
    n_pairs_done: int
    n_tokens: int
    n_rejected: int
    n_reused: int
    message: str
    model_id: str
    submitted_at: float | None
    started_at: float | None
    progress_at: float | None
    state_at: float | None
    n_pairs_before: int

    @classmethod
    def of(cls, job_id: str, fields: dict[str, str], live: Iterable[str]) -> JobCounts | None:
        """Return the counts from a job's hash, or None if it is not known or only partly.

        Args:
            job_id: the job's id.
            fields: the hash `rankmill:job:ID`.
            live: "pairs tokens" of each running shard.
        """
        if "state" not in fields:  # nothing, or the rest if Redis lost a part
            return None

        def time(name: str) -> float | None:
            return float(fields[name]) if name in fields else None

        running = [tuple(map(int, value.split())) for value in live]
        return cls(
            job_id=job_id,
            state=JobState(fields["state"]),
            output_uri=fields["output_uri"],
            n_shards=int(fields["n_shards"]),
            n_shards_done=int(fields["n_shards_done"]),
            n_rows=int(fields["n_rows"]),
            n_pairs_done=int(fields["n_pairs_done"]) + sum(pairs for pairs, _ in running),
            n_tokens=int(fields["n_tokens"]) + sum(tokens for _, tokens in running),
            n_rejected=int(fields["n_rejected"]),
            n_reused=int(fields.get("n_reused", 0)),
            message=fields["message"],
            model_id=fields.get("model_id", ""),
            submitted_at=time("submitted_at"),
            started_at=time("started_at"),
            progress_at=time("progress_at"),
            state_at=time("state_at"),
            n_pairs_before=int(fields.get("n_pairs_before", 0)),
        )
