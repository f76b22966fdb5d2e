"""Send a job's work and note its outcome, with a bounded number of its shards in flight.

Every method of `Dispatcher` is idempotent: any process may call it, at any time and repeatedly.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from rankmill.broker import (
    CONTROL_QUEUE,
    score_queue,
    send_finalize,
    send_prepare,
    send_report,
    send_shard,
)
from rankmill.contract.job import JobRecord
from rankmill.contract.job_state import JobState
from rankmill.contract.plan import Plan
from rankmill.contract.results import Failure, ShardReport
from rankmill.errors import BrokerUnavailable, Declined, EntryBroken, RankmillError
from rankmill.host import machine_id, worker_id
from rankmill.ledger.counts import JobCounts
from rankmill.ledger.declines import Decline, failure, is_hopeless
from rankmill.ledger.jobs import Ledger, ledger
from rankmill.logs import get_logger
from rankmill.notify import end_event, failed_event, notify
from rankmill.output import cleanup
from rankmill.output.output import Job, Output
from rankmill.settings import Settings, settings

log = get_logger(__name__)

# Characters of a host's reason in the failure of a job, which may list many hosts.
_MAX_REASON_CHARS = 300


@dataclass(frozen=True)
class Dispatcher:
    """The transitions of jobs, for one ledger under one process's settings."""

    ledger: Ledger
    settings: Settings

    def start(self, job: Job) -> None:
        """Open a planned job in Redis and send its first shards; finished shards are not sent."""
        self._open(job, list(job.output.reports(job.job_id)))

    def prepare(self, record: JobRecord) -> None:
        """Open a job in Redis and send its preparation, which plans and starts it."""
        self.ledger.open_job(record, None, ())
        send_prepare(record.job_id, record.spec.output_uri)

    def start_again(self, output: Output) -> None:
        """Start the job of an output, or its preparation if it has no plan yet.

        Raises:
            JobUnknown: no job was submitted there, or its submitter died before it wrote the plan.
        """
        record = output.read_job()
        if record is not None and record.prepares and output.read_plan() is None:
            self.prepare(record)
        else:
            self.start(output.load_job())

    def replace(self, output: Output, record: JobRecord, plan: Plan | None) -> None:
        """Start a new job on an output that holds an earlier result, and remove that result.

        Redis takes the job and its first messages before anything is removed, so that a failure
        leaves the result whole. A worker that receives such a message too early retries it.

        Raises:
            BrokerUnavailable: Redis does not take the job; nothing on storage was changed.
        """
        try:
            if plan is None:
                self.ledger.open_job(record, None, (), replaces=True)
                send_prepare(record.job_id, output.uri)
            else:
                self._open(Job(record, plan, output), (), replaces=True)
            cleanup.remove_result(output)
            if plan is not None:
                output.write_plan(plan)
            output.write_job(record)  # last, since workers wait for it
        except BaseException:
            with suppress(BrokerUnavailable):
                self.ledger.forget_job(record.job_id)
            raise
        with suppress(BrokerUnavailable):  # it expires
            self.ledger.in_place(record.job_id)

    def advance(self, job: Job) -> None:
        """Send the next shards of a running job, or its finalize once all are done."""
        now = self.ledger.progress(job.job_id)
        if now is None or now.state not in (JobState.RUNNING, JobState.FINALIZING):
            return
        if now.is_done:
            self.ledger.set_state(job.job_id, JobState.FINALIZING)
            send_finalize(job.job_id, job.output.uri)
            return
        window = self.window(job.spec.priority, now.sum_priorities, now.n_workers)
        for shard_index in self.ledger.take_next(job.job_id, window):
            send_shard(job.shard(shard_index), job.spec.model_id)

    def window(self, priority: int, sum_priorities: int, n_workers: int) -> int:
        """Return how many shards of a job may be in flight."""
        capacity = self.settings.shards_per_worker * max(2, n_workers)
        return window_for(priority, sum_priorities, capacity)

    def finish_shard(self, job: Job, report: ShardReport) -> None:
        """Count a reported shard and send the next one."""
        try:
            n_done = self.ledger.finish_shard(report)
        except EntryBroken as error:
            log.warning("job's entry in Redis is broken", job_id=job.job_id, error=str(error))
            n_done = None
        if n_done is None:
            log.warning("job unknown to Redis reopened from storage", job_id=job.job_id)
            self.start(job)
            return
        self.advance(job)

    def fail(self, record: JobRecord, error: RankmillError, shard_index: int | None) -> None:
        """End a job without success: write `failure.json`, keep the finished parts.

        Redis alone records the failure if the file cannot be written or the output belongs to
        another job by now.
        """
        log.error("job failed", job_id=record.job_id, error=str(error))
        failure = Failure.of(record.job_id, error, shard_index)
        output = Output(record.spec.output_uri)
        is_written = had_other_end = False
        try:
            if output.holds(record.job_id):
                written = output.write_failure(failure)
                failure, is_written = written or failure, written is not None
                had_other_end = written is None
        except RankmillError as refused:
            log.error("failure.json cannot be written", job_id=record.job_id, error=str(refused))
        if had_other_end:
            self.end(output, record.job_id)
            return
        event = failed_event(failure, output.uri, self.last_counts(record.job_id))
        if is_written:
            notify(event)
        self._end_job(record.job_id, JobState.FAILED, failure.message)
        if is_written:
            self._start_if_reopened(output, record.job_id)
        else:
            notify(event)  # posted only after Redis has recorded the end
        send_report(record.job_id, output.uri)

    def end(self, output: Output, job_id: str) -> None:
        """Note in Redis that a job has ended, as storage says, and notify the webhook.

        The webhook comes first: if this process dies between the two, reconcile repeats both.
        """
        event = end_event(output, self.last_counts(job_id))
        if event is not None:
            notify(event)
        self._end_job(job_id, output.state())
        self._start_if_reopened(output, job_id)

    def last_counts(self, job_id: str) -> JobCounts | None:
        """Return the counts of a job that ends; remove a broken entry, which storage replaces."""
        try:
            return self.ledger.counts(job_id)
        except EntryBroken as error:
            log.warning("job's entry in Redis is broken", job_id=job_id, error=str(error))
            self.ledger.forget_job(job_id)
            return None

    def decline(
        self,
        job_id: str,
        output_uri: str,
        record: JobRecord | None,
        error: RankmillError,
        shard_index: int | None = None,
    ) -> str:
        """Note that this host cannot do a job's work, and fail the job if no other host can.

        Returns:
            The outcome in one line, if the work is not sent back.

        Raises:
            Declined: another host may do it; the caller sends it back.
        """
        counts = self.ledger.counts(job_id)
        if record is None and (counts is None or counts.output_uri != output_uri):
            self.refuse(job_id, output_uri, error)
            return "refused"
        is_over = counts is not None and counts.state.is_final
        if is_over and shard_index is not None:
            return "not wanted any more"
        now, n_done = self.ledger.now(), counts.n_shards_done if counts else 0
        declines = self.ledger.declines.note(
            job_id,
            Decline(
                worker=worker_id(),
                host=socket.gethostname(),
                machine=machine_id(),
                reason=str(error)[:_MAX_REASON_CHARS],
                kind=type(error).__name__,
                blame=error.blame,
                n_shards_done=n_done,
                at=now,
                since=now,
            ),
            self.settings.keep_finished_s,
        )
        model_id = record.spec.model_id if record else counts.model_id if counts else ""
        queue = CONTROL_QUEUE if shard_index is None else score_queue(model_id)
        workers = self.ledger.workers
        held = self.ledger.claims.held(job_id, self.ledger.in_flight(job_id))
        if workers.are_returning(queue) or not is_hopeless(
            declines, workers.takers(queue), n_done, is_running=bool(held)
        ):
            raise Declined(str(error))
        hopeless = failure(declines, error.exit_code)
        if is_over:
            return f"no host can do it: {hopeless}"
        if record is not None:
            self.fail(record, hopeless, shard_index)
        else:
            self.refuse(job_id, output_uri, hopeless)
        return f"failed its job: {hopeless}"

    def refuse(self, job_id: str, output_uri: str, error: RankmillError) -> None:
        """Fail a job in Redis whose output may not be touched or cannot be read.

        A message that names another output than the job's own does not end the job.
        """
        log.error("job refused", job_id=job_id, error=str(error))
        counts = self.ledger.counts(job_id)
        if counts is None or counts.output_uri != output_uri or counts.state.is_final:
            return
        notify(failed_event(Failure.of(job_id, error), output_uri, counts))
        self._end_job(job_id, JobState.FAILED, str(error))

    def cancel(self, output: Output, job_id: str) -> bool:
        """Stop a job: running shards stop before they publish, waiting ones are skipped.

        Return False if it had another end before.
        """
        if not output.mark_cancelled():
            self.end(output, job_id)
            return False
        self._end_job(job_id, JobState.CANCELLED)
        self._start_if_reopened(output, job_id)
        send_report(job_id, output.uri)
        return True

    def _open(self, job: Job, done: Sequence[ShardReport], *, replaces: bool = False) -> None:
        """Open a planned job and send its first shards, or its finalize if all are done."""
        priorities = {**self.ledger.priorities(), job.job_id: job.spec.priority}
        window = self.window(
            job.spec.priority, sum(priorities.values()), self.ledger.workers.n_live()
        )
        shards = self.ledger.open_job(job.record, job.plan, done, window=window, replaces=replaces)
        for shard_index in shards:
            send_shard(job.shard(shard_index), job.spec.model_id)
        if len(done) >= job.plan.n_shards:
            send_finalize(job.job_id, job.output.uri)

    def _end_job(self, job_id: str, state: JobState, message: str = "") -> None:
        self.ledger.end_job(job_id, state, message, self.settings.keep_finished_s)

    def _start_if_reopened(self, output: Output, job_id: str) -> None:
        """Start the job again if it was resumed on storage while Redis was noting its end."""
        if output.holds(job_id) and not output.has_ended():
            log.warning("job resumed while its end was being noted", job_id=job_id)
            self.start_again(output)


def dispatcher() -> Dispatcher:
    """Return the dispatcher of this process's ledger and settings."""
    return Dispatcher(ledger(), settings())


def window_for(priority: int, sum_priorities: int, capacity: int) -> int:
    """Return a job's share of the `capacity` shards that may be in flight; at least one.

    Each finished shard is followed by one of the same job, and queues are served in order.
    So jobs advance in the ratio of their windows.
    """
    return max(1, round(capacity * priority / max(priority, sum_priorities)))
