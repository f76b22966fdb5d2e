"""Follow a job: from Redis while it runs, from storage for the truth."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from rankmill import storage
from rankmill.errors import BrokerUnavailable, JobFailed, JobUnknown
from rankmill.ledger import JobCounts, Ledger
from rankmill.lifecycle import JobState
from rankmill.output import Output
from rankmill.settings import settings

_POLL_S = 0.5


class JobStatus(BaseModel):
    """Where a job stands; what `status --json` prints."""

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
    exit_code: int = 1
    n_reused: int = 0
    no_reuse: str = ""


@dataclass(frozen=True)
class JobHandle:
    """A submitted job."""

    job_id: str
    output: Output
    ledger: Ledger

    def status(self) -> JobStatus:
        """Where the job stands now, also where Redis has forgotten it."""
        return self._status().model_copy(update={"control_uri": self.output.control_uri})

    def _status(self) -> JobStatus:
        try:
            counts = self.ledger.counts(self.job_id)
        except BrokerUnavailable:
            counts = None
        if counts is not None and not counts.state.is_final and not self.output.has_ended():
            return _status_from_counts(counts)
        status = status_from_storage(self.output)
        if counts is None or not counts.state.is_final:
            return status
        if not status.state.is_final:  # its failure could not be written
            return _status_from_counts(counts)
        if status.state is JobState.CANCELLED and self._is_worked_on():
            return status.model_copy(update={"state": JobState.CANCELLING})
        return status

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
        why = f": {status.message}" if status.message else ""
        raise JobFailed(f"job {status.job_id} {status.state}{why}", status.exit_code)
    return status


def list_jobs() -> list[JobStatus]:
    """The jobs that Redis remembers, newest first."""
    ledger = Ledger.connect(settings())
    counts = [ledger.counts(job_id) for job_id in ledger.job_ids()]
    return [_status_from_counts(each) for each in counts if each is not None]


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
        return JobHandle(record.job_id, output, ledger)
    counts = ledger.counts(name)
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
    return JobStatus(
        job_id=record.job_id,
        state=state,
        output_uri=output.uri,
        n_shards=plan.n_shards if plan else 0,
        n_shards_done=len(reports),
        n_rows=plan.n_rows if plan else 0,
        n_pairs_done=sum(report.n_rows for report in reports),
        n_tokens=sum(report.n_tokens for report in reports),
        n_rejected=sum(report.n_rejected for report in reports),
        message=failure.message if failure else output.loss(),
        exit_code=failure.exit_code if failure else 1,
        n_reused=sum(report.n_reused for report in reports),
        no_reuse=record.no_reuse or next(filter(None, (each.no_reuse for each in reports)), ""),
    )


def _status_from_counts(counts: JobCounts) -> JobStatus:
    return JobStatus(**vars(counts))
