"""Follow a job: from Redis while it runs, from storage for the truth."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, ConfigDict

from rankmill import storage
from rankmill.broker import CONTROL_QUEUE, score_queue
from rankmill.contract.job_state import JobState
from rankmill.contract.results import Failure
from rankmill.errors import BrokerUnavailable, JobFailed, JobUnknown
from rankmill.ledger.claim import FINALIZATION, PREPARATION
from rankmill.ledger.jobs import JobCounts, Ledger
from rankmill.output.local_run import LocalRun, last_run
from rankmill.output.output import Output
from rankmill.settings import settings

_POLL_S = 0.5


class JobStatus(BaseModel):
    """Where a job stands; what `status --json` prints.

    Attributes:
        message: why it failed.
        exit_code: what its commands end with; None while it is not over.
        started_at: when its first shard was begun, since it was last submitted or resumed.
        progress_at: when a pair was scored last.
        reason: why it failed, waits, was interrupted, or why nobody can say.
    """

    model_config = ConfigDict(frozen=True)

    job_id: str
    state: JobState
    output_uri: str
    n_shards: int
    n_shards_done: int
    n_rows: int
    n_pairs_done: int
    n_tokens: int
    n_rejected: int
    message: str
    control_uri: str | None = None
    exit_code: int | None = None
    n_reused: int = 0
    no_reuse: str = ""
    model_id: str = ""
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    progress_at: datetime | None = None
    ended_at: datetime | None = None
    pairs_per_s: float | None = None
    eta_s: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class JobHandle:
    """A submitted job.

    Attributes:
        run: the `rankmill run` that had it last; its cluster is gone unless it lives here.
    """

    job_id: str
    output: Output
    ledger: Ledger
    run: LocalRun | None = None

    @property
    def is_reachable(self) -> bool:
        """Whether `ledger` is that of the job's cluster, though it may not answer."""
        return self.run is None or (self.run.is_here and self.run.is_alive)

    def status(self) -> JobStatus:
        """Where the job stands now, also where Redis has forgotten it."""
        return self._status().model_copy(update={"control_uri": self.output.control_uri})

    def _status(self) -> JobStatus:
        counts, away = None, ""
        try:
            if self.is_reachable:
                counts = self.ledger.counts(self.job_id)
                is_live = counts is not None and not counts.state.is_final
                if counts is not None and is_live and not self.output.has_ended():
                    return _live_status(counts, self.ledger)
        except BrokerUnavailable as error:
            away = str(error)
        status = status_from_storage(self.output)
        if counts is None:
            return status if status.state.is_final else self._unknown_to_redis(status, away)
        if not counts.state.is_final:
            return status
        if not status.state.is_final:  # its failure could not be written
            return _status_from_counts(counts)
        if status.state is JobState.CANCELLED and self._is_worked_on():
            return status.model_copy(update={"state": JobState.CANCELLING, "exit_code": None})
        return status

    def _unknown_to_redis(self, status: JobStatus, away: str) -> JobStatus:
        """The status of a job that storage calls unfinished, without a Redis that knows it."""
        run, resume = last_run(self.output), f"rankmill resume {self.output.uri}"
        if run is not None and run.is_alive:
            return status.model_copy(update={"reason": f"by {run.name}"})
        if run is not None:
            changes = {
                "state": JobState.INTERRUPTED,
                "exit_code": 1,
                "ended_at": run.ended_at or run.seen_at,
                "reason": f"{run.name} has gone; {resume} goes on",
            }
            return status.model_copy(update=changes)
        if away:
            reason = f"{away}; storage says {status.state}"
            return status.model_copy(update={"state": JobState.BROKER_AWAY, "reason": reason})
        reason = f"Redis does not know it; unless a worker has it, {resume} goes on"
        return status.model_copy(update={"reason": reason})

    def _is_worked_on(self) -> bool:
        in_flight = self.ledger.in_flight(self.job_id)
        return any(self.ledger.claims.holder(self.job_id, n) is not None for n in in_flight)

    def watch(self, every_s: float = _POLL_S) -> Iterator[JobStatus]:
        """The status again and again; the last one is final."""
        while True:
            status = self.status()
            yield status
            if status.state.is_final:
                return
            time.sleep(every_s)

    def wait(self, timeout_s: float | None = None) -> JobStatus:
        """Block until the job has ended.

        Raises:
            JobFailed: it failed or was cancelled.
            TimeoutError: it did not end in time; it goes on.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for status in self.watch():
            if status.state.is_final:
                return succeeded(status)
            if deadline and time.monotonic() > deadline:
                raise TimeoutError(f"job {self.job_id} is {status.state} after {timeout_s} s")
        return status


def succeeded(status: JobStatus) -> JobStatus:
    """The final status of a job that did not fail.

    Raises:
        JobFailed: it failed or was cancelled.
    """
    if not status.state.is_success:
        why = f": {status.reason}" if status.reason else ""
        raise JobFailed(f"job {status.job_id} {status.state}{why}", status.exit_code or 1)
    return status


def list_jobs() -> list[JobStatus]:
    """The jobs that Redis remembers, newest first."""
    ledger = Ledger.connect(settings())
    counts = [ledger.counts(job_id) for job_id in ledger.job_ids()]
    return [_live_status(each, ledger) for each in counts if each is not None]


def find_job(name: str) -> JobHandle:
    """A job by its id, or by its output folder, which works with Redis empty too.

    Raises:
        JobUnknown: neither is known.
    """
    ledger = Ledger.connect(settings())
    # Its control folder is there also where its result was removed.
    is_output = any(map(os.path.isdir, (name, os.path.join(storage.CONTROL_FOLDER, name))))
    if is_output or "/" in name:
        output = Output(storage.absolute(name))
        record = output.read_job()
        if record is None:
            raise output.no_job()
        run = last_run(output)
        if run is not None and run.is_here and run.is_alive:
            ledger = Ledger.connect(settings().model_copy(update={"broker_url": run.broker_url}))
        return JobHandle(record.job_id, output, ledger, run)
    try:
        counts = ledger.counts(name)
    except BrokerUnavailable as error:
        raise BrokerUnavailable(
            f"{name} is not an output folder here; as a job's id: {error}"
        ) from error
    if counts is None:
        raise JobUnknown(f"job {name} is not known to Redis; name it by its output folder")
    return JobHandle(name, Output(counts.output_uri), ledger)


def status_from_storage(output: Output) -> JobStatus:
    """A job's status with nothing but its output folder.

    Raises:
        JobUnknown: no job was submitted there.
    """
    state = output.state()
    record, plan, failure = output.read_job(), output.read_plan(), output.read_failure()
    if record is None:
        raise output.no_job()
    reports = list(output.reports(record.job_id))
    n_rows_done = sum(report.n_rows for report in reports)
    finished = [report.finished_at for report in reports if report.finished_at]
    begun = [
        report.finished_at - timedelta(seconds=report.wall_s)
        for report in reports
        if report.finished_at
    ]
    started_at, progress_at = min(begun, default=None), max(finished, default=None)
    ended_at = _ended_at(output, state, failure)
    took_s = (ended_at - started_at).total_seconds() if ended_at and started_at else 0
    return JobStatus(
        job_id=record.job_id,
        state=state,
        output_uri=output.uri,
        n_shards=plan.n_shards if plan else 0,
        n_shards_done=len(reports),
        n_rows=plan.n_rows if plan else 0,
        n_pairs_done=n_rows_done,
        n_tokens=sum(report.n_tokens for report in reports),
        n_rejected=sum(report.n_rejected for report in reports),
        message=failure.message if failure else output.loss(),
        exit_code=_exit_code(state, failure),
        n_reused=sum(report.n_reused for report in reports),
        no_reuse=record.no_reuse or next(filter(None, (each.no_reuse for each in reports)), ""),
        model_id=record.spec.model_id,
        submitted_at=record.submitted_at,
        started_at=started_at,
        progress_at=progress_at,
        ended_at=ended_at,
        pairs_per_s=round(n_rows_done / took_s, 1) if took_s > 0 and state.is_success else None,
        reason=failure.message if failure else output.loss(),
    )


def _ended_at(output: Output, state: JobState, failure: Failure | None) -> datetime | None:
    if state.is_success:
        manifest = output.read_manifest()
        return manifest.finished_at if manifest else None
    if state is JobState.CANCELLED:
        return output.cancelled_at()
    return failure.failed_at if failure and state is JobState.FAILED else None


def _exit_code(state: JobState, failure: Failure | None = None) -> int | None:
    if state.is_success:
        return 0
    if not state.is_final:
        return None
    return failure.exit_code if failure and state is JobState.FAILED else 1


def _live_status(counts: JobCounts, ledger: Ledger) -> JobStatus:
    """As `_status_from_counts`, and whether anybody works on the job."""
    status = _status_from_counts(counts)
    if status.state.is_final or status.state is JobState.CANCELLING:
        return status
    now = ledger.now()
    n_pairs, since = counts.n_pairs_done - counts.n_pairs_before, counts.started_at
    if since is not None and now > since and n_pairs > 0:
        rate = n_pairs / (now - since)
        eta_s = round((counts.n_rows - counts.n_pairs_done) / rate)
        status = status.model_copy(update={"pairs_per_s": round(rate, 1), "eta_s": eta_s})
    scores = status.state is JobState.RUNNING
    queue = score_queue(counts.model_id) if scores else CONTROL_QUEUE
    if ledger.n_takers(queue) or _is_claimed(counts, ledger):
        return status
    remedy = "start one with rankmill worker" + ("" if scores else " (--role all or control)")
    reason = f"no live worker takes {queue}; {remedy}"
    return status.model_copy(update={"state": JobState.WAITING, "reason": reason})


def _is_claimed(counts: JobCounts, ledger: Ledger) -> bool:
    """Whether a worker, of an earlier release perhaps, is at work on the job right now."""
    work = [PREPARATION, FINALIZATION, *ledger.in_flight(counts.job_id)]
    return any(ledger.claims.holder(counts.job_id, each) is not None for each in work)


def _status_from_counts(counts: JobCounts) -> JobStatus:
    names = JobStatus.model_fields.keys() & vars(counts).keys()
    given = {name: getattr(counts, name) for name in names}
    times = {
        "submitted_at": counts.submitted_at,
        "started_at": counts.started_at,
        "progress_at": counts.progress_at,
        "ended_at": counts.state_at if counts.state.is_final else None,
    }
    given |= {
        name: None if at is None else datetime.fromtimestamp(at, UTC) for name, at in times.items()
    }
    return JobStatus(**given, exit_code=_exit_code(counts.state), reason=counts.message)
