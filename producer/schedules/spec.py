"""A schedule's definition and the outcome of each due time, as frozen, versioned models."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, Field

from rankmill.contract.base import Contract
from rankmill.contract.job import JobOptions

Overlap = Literal["skip", "queue"]
Missed = Literal["skip", "latest"]


def _check_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", name):
        raise ValueError(
            "is not a schedule's name; take letters, digits, '.', '_' and '-', a letter or a digit "
            "first, 63 at most"
        )
    return name


def _check_deadline(text: str) -> str:
    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", text):
        raise ValueError("is not a time of day from 00:00 to 23:59, such as 06:00")
    return text


class ScheduleSpec(Contract):
    """A job, when it is due, and the policies for overlapping and missed runs.

    Paths in `job` and `output_uri` may be templates, see `templates`.
    """

    name: Annotated[str, AfterValidator(_check_name)]
    cron: str = Field(description="Minute, hour, day of month, month, day of week")
    tz: str = Field("UTC", description="IANA time zone of the cron line")
    job: JobOptions
    output_uri: str = Field(min_length=1)
    overlap: Overlap = Field("skip", description="If a run is still open: skip, or queue")
    missed: Missed = Field("skip", description="Missed runs: skip, or run the latest")
    grace_min: int = Field(60, ge=1, description="Minutes after which a run counts as missed")
    unless_unchanged: bool = Field(False, description="Run only if input or options changed")
    deadline: Annotated[str, AfterValidator(_check_deadline)] | None = Field(
        None,
        description="Alert if a run is not done by HH:MM",
    )
    fail_if: tuple[str, ...] = Field(
        (), description="Hold the run if this is true, e.g. churn@10>0.3"
    )
    qrels: str | None = Field(
        None,
        min_length=1,
        description="Relevance judgments, to measure nDCG",
    )
    paused: bool = Field(False, description="Start no runs until resumed")


class FiringState(StrEnum):
    """The outcome of a due time."""

    WAITING = "waiting"  # for the run before to end
    STARTING = "starting"  # will run; the job may or may not have been submitted
    RUNNING = "running"  # the job was submitted
    COMPARING = "comparing"  # the job succeeded; it is compared with the run that `latest` names
    SUCCEEDED = "succeeded"  # `latest` names this run, or a later one
    HELD = "held"  # the job succeeded, a gate failed; `latest` stays until somebody accepts it
    FAILED = "failed"  # the job failed; `latest` stays
    CANCELLED = "cancelled"  # the job was cancelled; `latest` stays
    NOT_SUBMITTED = "not submitted"  # no job was made; the message says why
    OVERLAPPED = "skipped: overlap"  # the run before had not ended
    MISSED = "skipped: missed"  # no tick ran in time: no beat, no worker or no Redis
    UNCHANGED = "skipped: unchanged"  # input and options equal those of the last success

    @property
    def is_open(self) -> bool:
        """Whether the firing has not ended."""
        return self in (FiringState.WAITING, FiringState.STARTING) or self.is_at_work

    @property
    def is_at_work(self) -> bool:
        """Whether no other run of the schedule may begin."""
        return self in (FiringState.RUNNING, FiringState.COMPARING)


class Firing(Contract):
    """One due time of a schedule and its outcome.

    Attributes:
        by_hand: somebody asked for the run; it was not due by the clock.
        fingerprint: of options and input files, if they were read.
        late_at: when the coming miss of the deadline was noticed.
    """

    schedule: str
    due: AwareDatetime
    state: FiringState
    noted_at: AwareDatetime
    by_hand: bool = False
    message: str = ""
    output_uri: str | None = None
    fingerprint: str | None = None
    started_at: AwareDatetime | None = None
    ended_at: AwareDatetime | None = None
    late_at: AwareDatetime | None = None

    @property
    def job_id(self) -> str:
        """The id of the one job that this due time can make."""
        return hashlib.sha256(f"{self.schedule}@{due_key(self.due)}".encode()).hexdigest()[:12]

    def became(self, state: FiringState, message: str = "", **changes: object) -> Firing:
        """Return a copy with a new state, message and other changed fields."""
        return self.model_copy(update={"state": state, "message": message, **changes})


class Latest(Contract):
    """`latest.json`: the newest run of a schedule that succeeded."""

    schedule: str
    due: AwareDatetime
    job_id: str
    output_uri: str
    fingerprint: str | None
    published_at: AwareDatetime


def due_key(due: datetime) -> str:
    """Return a due time as text that sorts by time."""
    return due.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
