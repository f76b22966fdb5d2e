"""The handle of a job: find it, ask for its status, wait for its end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from producer.jobs.status import (
    JobStatus,
    live_statuses,
    status_from_redis,
    status_from_storage,
    succeeded,
)
from rankmill import storage
from rankmill.contract.job_state import JobState
from rankmill.errors import BrokerUnavailable, JobUnknown
from rankmill.ledger.jobs import Ledger
from rankmill.output.local_run import LocalRun, last_run
from rankmill.output.output import Output
from rankmill.settings import settings

_POLL_S = 0.5


@dataclass(frozen=True)
class JobHandle:
    """A submitted job.

    Attributes:
        run: the `rankmill run` that had it last. Its cluster is gone unless it lives here.
    """

    job_id: str
    output: Output
    ledger: Ledger
    run: LocalRun | None = None

    @property
    def is_reachable(self) -> bool:
        """Return whether `ledger` is that of the job's cluster, though it may not answer."""
        return self.run is None or (self.run.is_here and self.run.is_alive)

    def status(self) -> JobStatus:
        """Return the job's status now, from storage where Redis has forgotten the job."""
        return self._status().model_copy(update={"control_uri": self.output.control_uri})

    def _status(self) -> JobStatus:
        counts, error = None, ""
        try:
            if self.is_reachable:
                counts = self.ledger.counts(self.job_id)
                is_live = counts is not None and not counts.state.is_final
                if is_live and not self.output.has_ended():
                    for live in live_statuses(self.ledger, [self.job_id]):
                        if isinstance(live, JobStatus):
                            return live
                        raise live
        except BrokerUnavailable as unavailable:
            error = str(unavailable)
        status = status_from_storage(self.output, counts)
        if counts is None:
            return status if status.state.is_final else self._explained(status, error)
        if not counts.state.is_final:
            return status
        if not status.state.is_final:  # its failure could not be written
            return status_from_redis(counts)
        if status.state is JobState.CANCELLED:
            in_flight = self.ledger.in_flight(self.job_id)
            if any(self.ledger.claims.holder(self.job_id, n) is not None for n in in_flight):
                return status.model_copy(update={"state": JobState.CANCELLING, "exit_code": None})
        return status

    def _explained(self, status: JobStatus, redis_error: str) -> JobStatus:
        """Explain why storage calls the job unfinished and Redis does not know it."""
        run, resume = last_run(self.output), f"rankmill resume {self.output.uri}"
        if run is not None and run.is_alive:
            return status.model_copy(update={"reason": f"by {run.name}"})
        if run is not None:
            changes = {
                "state": JobState.INTERRUPTED,
                "exit_code": 1,
                "ended_at": run.ended_at or run.seen_at,
                "reason": f"{run.name} has gone; {resume} continues it",
            }
            return status.model_copy(update=changes)
        if redis_error:
            reason = f"{redis_error}; storage says {status.state}"
            return status.model_copy(update={"state": JobState.BROKER_AWAY, "reason": reason})
        reason = f"Redis does not know it; unless a worker has it, {resume} continues it"
        return status.model_copy(update={"reason": reason})

    def watch(self, every_s: float = _POLL_S) -> Iterator[JobStatus]:
        """Yield the status every `every_s` seconds; the last one is final."""
        while True:
            status = self.status()
            yield status
            if status.state.is_final:
                return
            time.sleep(every_s)

    def wait(self, timeout_s: float | None = None) -> JobStatus:
        """Block until the job has ended, and return its last status.

        Raises:
            JobFailed: it failed or was cancelled.
            TimeoutError: it did not end in time. It continues.
        """
        *_, last = self.watch_for(timeout_s)
        return succeeded(last)

    def watch_for(self, timeout_s: float | None) -> Iterator[JobStatus]:
        """Yield the status as `watch` does, for at most `timeout_s` seconds.

        Raises:
            TimeoutError: the job did not end in time. It continues.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for status in self.watch():
            yield status
            if deadline and time.monotonic() > deadline and not status.state.is_final:
                raise TimeoutError(f"job {self.job_id} is {status.state} after {timeout_s} s")


def find_job(name: str) -> JobHandle:
    """Return a job by its id or by its output folder; a folder is found without Redis too.

    Raises:
        JobUnknown: there is no such job.
        BrokerUnavailable: `name` is not a folder, and Redis does not answer.
    """
    ledger = Ledger.connect(settings())
    # The control folder is there also where the result was removed.
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
