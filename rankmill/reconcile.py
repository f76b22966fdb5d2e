"""Find the work that a fault left without a worker, and send it again.

The main process of every worker scans regularly, so that there is no single point of failure. Redis
gives each turn to one of them. A scan is idempotent, and cheap if nothing is wrong.
"""

from __future__ import annotations

from rankmill.broker import (
    FINALIZE,
    PREPARE,
    job_task_id,
    queues_of,
    send_prepare,
    send_shard,
    shard_task_id,
    task_id_of,
)
from rankmill.contract.job_state import JobState
from rankmill.dispatch import Dispatcher
from rankmill.errors import (
    BrokerUnavailable,
    EntryBroken,
    InputError,
    NotAllowed,
    OutputNotReady,
    RankmillError,
    unexpected,
)
from rankmill.ledger.claims import FINALIZATION, PREPARATION
from rankmill.ledger.counts import JobCounts
from rankmill.logs import get_logger
from rankmill.output.output import Job, Output

log = get_logger(__name__)


class Reconciler:
    """Scans the running jobs; it remembers them, in case Redis loses them."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._ledger = dispatcher.ledger
        self._settings = dispatcher.settings
        self._running: dict[str, str] = {}  # job id to output URI

    def remember(self, job_id: str, output_uri: str) -> None:
        """Scan a job from now on, even if Redis does not list it; safe from any thread."""
        self._running[job_id] = output_uri

    def scan(self) -> None:
        """Send again shards with neither message, live claim nor report; reopen forgotten jobs.

        A job that cannot be scanned, for example because its storage is away, does not stop others.

        Raises:
            BrokerUnavailable: Redis does not answer.
        """
        job_ids = {*list(self._running), *self._ledger.priorities()}
        counts = {job_id: self._counts(job_id) for job_id in sorted(job_ids)}
        if self._ledger.take_turn("reconcile", self._settings.reconcile_s * 0.9):
            queued = [each for queue in queues_of("all") for each in self._ledger.queued(queue)]
            waiting = {task_id_of(message) for message in queued}
            for job_id, seen in counts.items():
                self._scan_safely(job_id, seen, waiting)
        for job_id, seen in counts.items():
            if seen is not None and seen.state.is_final:
                self._running.pop(job_id, None)
            elif seen is not None:
                self._running[job_id] = seen.output_uri

    def _scan_safely(self, job_id: str, seen: JobCounts | None, waiting: set[str]) -> None:
        """Scan one job; an error of the job itself is logged and stops no other job."""
        try:
            try:
                self._scan_job(job_id, seen, waiting)
            except (InputError, NotAllowed) as error:  # the same next time
                log.error("job cannot continue", job_id=job_id, error=str(error))
                self._fail(job_id, str(error))
            except EntryBroken as error:
                log.warning("job's entry in Redis is broken", job_id=job_id, error=str(error))
                if seen is not None:
                    self._dispatcher.start_again(Output(seen.output_uri))
        except BrokerUnavailable:
            raise
        except RankmillError as error:
            log.warning("job cannot be scanned", job_id=job_id, error=str(error))
        except Exception as error:  # a bug
            bug = str(unexpected(error))
            log.error("job cannot be scanned", job_id=job_id, error=bug, exc_info=True)

    def _counts(self, job_id: str) -> JobCounts | None:
        """Return a job's counts; None if Redis lost them or holds something else."""
        try:
            return self._ledger.counts(job_id)
        except EntryBroken as error:
            log.warning("job's entry in Redis is broken", job_id=job_id, error=str(error))
            return None

    def _scan_job(self, job_id: str, seen: JobCounts | None, waiting: set[str]) -> None:
        """Act on one job.

        Args:
            job_id: the job's id.
            seen: its counts, or None if Redis has lost them.
            waiting: the task ids of all messages in queues.
        """
        if seen is not None and seen.state.is_final:
            return
        output_uri = seen.output_uri if seen else self._running.get(job_id)
        if output_uri is None:  # Redis lists the job but lost all else; its storage is not known
            return
        output = Output(output_uri)
        record = output.read_job()
        try:
            self._ledger.check_in_place(job_id, record)
        except OutputNotReady:
            return
        if record is None:
            self._dispatcher.end_unseen(job_id, output.uri)
            self._running.pop(job_id, None)
        elif record.job_id != job_id:
            self._fail(job_id, f"{output.uri} no longer holds this job")
        elif output.has_ended():
            self._dispatcher.end(output, job_id)
            self._running.pop(job_id, None)
        elif seen is None:
            log.warning("job unknown to Redis reopened from storage", job_id=job_id)
            self._dispatcher.start_again(output)
        elif output.read_plan() is None:
            if not self._is_under_way(PREPARE, job_id, waiting):
                log.warning("preparation sent again", job_id=job_id)
                send_prepare(job_id, record.spec.output_uri)
        elif seen.state is not JobState.FINALIZING or not self._is_under_way(
            FINALIZE, job_id, waiting
        ):
            self._send_lost_shards(output.load_job(), waiting)

    def _send_lost_shards(self, job: Job, waiting: set[str]) -> None:
        # Between leaving the queue and taking its claim a shard is in neither; skip it that time.
        settled = self._ledger.now() - self._settings.reconcile_s
        for shard_index, due in self._ledger.in_flight(job.job_id).items():
            if due > settled or shard_task_id(job.job_id, shard_index) in waiting:
                continue
            if self._ledger.claims.holder(job.job_id, shard_index) is None:
                log.warning("shard sent again", job_id=job.job_id, shard_index=shard_index)
                self._ledger.sent_again(job.job_id, shard_index)
                send_shard(job.shard(shard_index), job.spec.model_id)
        self._dispatcher.advance(job)

    def _is_under_way(self, task: str, job_id: str, waiting: set[str]) -> bool:
        work = {PREPARE: PREPARATION, FINALIZE: FINALIZATION}[task]
        is_claimed = self._ledger.claims.holder(job_id, work) is not None
        return is_claimed or job_task_id(task, job_id) in waiting

    def _fail(self, job_id: str, message: str) -> None:
        keep_s = self._settings.keep_finished_s
        self._ledger.end_job(job_id, JobState.FAILED, message, keep_s)
        self._running.pop(job_id, None)
