"""The live counts of a job, as Redis holds them, and its progress."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from rankmill.contract.job_state import JobState
from rankmill.errors import EntryBroken

_MAX_COUNT = 2**53
_MAX_TIME = 253_402_300_799  # the end of the year 9999


@dataclass(frozen=True)
class JobCounts:
    """The counts of a job in Redis; `n_pairs_done` and `n_tokens` include running shards.

    Running shards of a job that has ended do not count, since they stop.
    Times are by Redis's clock, in seconds. They are None if nothing happened yet or an earlier
    release opened the job.

    Attributes:
        n_pairs_before: pairs that were done when the job was opened.
        busy_ms: milliseconds in which devices computed, in the shards that have ended.
        worked_ms: milliseconds that these shards took.
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
    busy_ms: int = 0
    worked_ms: int = 0

    @classmethod
    def of(cls, job_id: str, fields: dict[str, str], live: Iterable[str]) -> JobCounts | None:
        """Return the counts from a job's hash, or None if it is not known or only partly.

        Args:
            job_id: the job's id.
            fields: the hash `rankmill:job:ID`.
            live: "pairs tokens" of each running shard.

        Raises:
            EntryBroken: a field is missing, or is not a number or a state.
        """
        if "state" not in fields:  # nothing, or the rest if Redis lost a part
            return None

        def count(name: str) -> int:
            return checked_count(fields[name])

        def time(name: str) -> float | None:
            return checked_time(float(fields[name])) if name in fields else None

        try:
            state = JobState(fields["state"])
            running = [tuple(map(checked_count, value.split())) for value in live]
            if state.is_final:
                running = []
            return cls(
                job_id=job_id,
                state=state,
                output_uri=fields["output_uri"],
                n_shards=count("n_shards"),
                n_shards_done=count("n_shards_done"),
                n_rows=count("n_rows"),
                n_pairs_done=count("n_pairs_done") + sum(pairs for pairs, _ in running),
                n_tokens=count("n_tokens") + sum(tokens for _, tokens in running),
                n_rejected=count("n_rejected"),
                n_reused=count("n_reused") if "n_reused" in fields else 0,
                message=fields["message"],
                model_id=fields.get("model_id", ""),
                submitted_at=time("submitted_at"),
                started_at=time("started_at"),
                progress_at=time("progress_at"),
                state_at=time("state_at"),
                n_pairs_before=count("n_pairs_before") if "n_pairs_before" in fields else 0,
                busy_ms=count("busy_ms") if "busy_ms" in fields else 0,
                worked_ms=count("worked_ms") if "worked_ms" in fields else 0,
            )
        except (KeyError, ValueError) as error:
            raise EntryBroken(f"job {job_id} is broken in Redis: {error!r:.80}") from error


class Progress(NamedTuple):
    """The counts that decide which shards of a job are sent next.

    Attributes:
        sum_priorities: the sum over all jobs that have not ended.
        n_workers: scoring workers with a heartbeat in the last minute.
    """

    state: JobState
    n_shards: int
    n_shards_done: int
    sum_priorities: int
    n_workers: int

    @property
    def is_done(self) -> bool:
        """Whether every shard has its report."""
        return self.n_shards_done >= self.n_shards


def checked_count(text: str) -> int:
    """Return a count that Redis holds as text.

    Raises:
        ValueError: it is not a whole number of at most 2**53.
    """
    number = int(text)
    if not 0 <= number <= _MAX_COUNT:
        raise ValueError(f"{text:.40} is not a count")
    return number


def checked_time(seconds: float) -> float:
    """Return a time in seconds since 1970.

    Raises:
        ValueError: it is before 1970 or after the year 9999.
    """
    if not 0 <= seconds <= _MAX_TIME:
        raise ValueError(f"{seconds} is not a time")
    return seconds
