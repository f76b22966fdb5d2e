"""What a schedule is, and what became of each of its due times; frozen and versioned."""

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
    """A job, when it is due, and what to do when that is not simple.

    Paths of `job` and `output_uri` are templates, see `templates`.
    """

    name: Annotated[str, AfterValidator(_check_name)]
    cron: str = Field(description="Minute, hour, day of month, month, day of week")
    tz: str = Field("UTC", description="IANA zone whose clock the cron line goes by")
    job: JobOptions
    output_uri: str = Field(min_length=1)
    overlap: Overlap = Field(
        "skip", description="When the run before has not ended: skip this one, or queue it"
    )
    missed: Missed = Field(
        "skip", description="Due times that nobody saw: skip them, or run the latest"
    )
    grace_min: int = Field(
        60, ge=1, description="Minutes after which a due time that nobody saw is missed"
    )
    unless_unchanged: bool = Field(
        False, description="Run only if input or options changed since the last success"
    )
    deadline: Annotated[str, AfterValidator(_check_deadline)] | None = Field(
        None,
        description="Time of day, as 06:00, past which a run that is not done raises an alert",
    )
    fail_if: tuple[str, ...] = Field(
        (), description="Gate: keep `latest` where it was if this holds, as churn@10>0.3"
    )
    qrels: str | None = Field(
        None,
        min_length=1,
        description="Judgments, for the change of nDCG since the run that `latest` names",
    )
    paused: bool = Field(False, description="Whether nothing is due until it is resumed")


class FiringState(StrEnum):
    """What became of a due time."""

    WAITING = "waiting"  # until the run before has ended
    STARTING = "starting"  # it is to run; its job may or may not have been submitted
    RUNNING = "running"  # its job was submitted
    COMPARING = "comparing"  # its job succeeded; it is held against the run that `latest` names
    SUCCEEDED = "succeeded"  # `latest` names this run, or a later one
    HELD = "held"  # its job succeeded, a gate failed; `latest` stays until somebody accepts it
    FAILED = "failed"  # its job failed, as it says; `latest` stays
    CANCELLED = "cancelled"  # its job was cancelled; `latest` stays
    NOT_SUBMITTED = "not submitted"  # there was no job, as it says why
    OVERLAPPED = "skipped: overlap"  # the run before had not ended
    MISSED = "skipped: missed"  # nobody looked in time: no beat, no worker or no Redis
    UNCHANGED = "skipped: unchanged"  # input and options were those of the last success

    @property
    def is_open(self) -> bool:
        return self in (FiringState.WAITING, FiringState.STARTING) or self.is_at_work

    @property
    def is_at_work(self) -> bool:
        """Whether no other run of the schedule may begin."""
        return self in (FiringState.RUNNING, FiringState.COMPARING)


class Firing(Contract):
    """One due time of a schedule and what became of it.

    Attributes:
        by_hand: somebody asked for it, it was not due by the clock.
        fingerprint: of options and input files, where these were looked at.
        late_at: when it was seen that the deadline will not be kept.
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
        """The id of the one job that this due time may make."""
        return hashlib.sha256(f"{self.schedule}@{due_key(self.due)}".encode()).hexdigest()[:12]

    def became(self, state: FiringState, message: str = "", **changes: object) -> Firing:
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
    """A due time as text whose order is that of time."""
    return due.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
