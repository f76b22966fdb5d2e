"""No shard is forgotten: what a fault left without a worker is found and sent again.

Every worker's main process looks regularly, so that there is no single point of failure; Redis
gives one of them each turn. A look is idempotent, and costs nothing where nothing is wrong.
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
from rankmill.contract.job import JobRecord
from rankmill.contract.job_state import JobState
from rankmill.dispatch import Dispatcher
from rankmill.errors import BrokerUnavailable, InputError, NotAllowed, OutputNotReady, RankmillError
from rankmill.ledger.claims import FINALIZATION, PREPARATION
from rankmill.ledger.jobs import JobCounts
from rankmill.logs import get_logger
from rankmill.output.output import Job, Output

log = get_logger(__name__)


class Reconciler:
    """One process's regular look; it remembers running jobs, in case that Redis forgets them."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._ledger = dispatcher.ledger
        self._settings = dispatcher.settings
        self._running: dict[str, str] = {}  # job id to output URI

    def remember(self, job_id: str, output_uri: str) -> None:
        """Look at a job from now on, whether Redis names it or not; threads may call this."""
        self._running[job_id] = output_uri

    def look(self) -> None:
        """Send again shards with neither message, live claim nor report; reopen forgotten jobs.

        A job that cannot be looked at, its storage away perhaps, does not keep others from it.

        Raises:
            BrokerUnavailable: Redis does not answer.
        """
        job_ids = {*list(self._running), *self._ledger.priorities()}
        counts = {job_id: self._ledger.counts(job_id) for job_id in sorted(job_ids)}
        if self._ledger.take_turn("reconcile", self._settings.reconcile_s * 0.9):
            waiting = self._waiting_task_ids()
            for job_id, seen in counts.items():
                try:
                    self._look_at(job_id, seen, waiting)
                except BrokerUnavailable:
                    raise
                except (InputError, NotAllowed) as error:  # the same next time
                    log.error("job cannot go on", job_id=job_id, error=str(error))
                    self._end(job_id, JobState.FAILED, str(error))
                except RankmillError as error:
                    log.warning("job cannot be looked at", job_id=job_id, error=str(error))
        for job_id, seen in counts.items():
            if seen is not None and seen.state.is_final:
                self._running.pop(job_id, None)
            elif seen is not None:
                self._running[job_id] = seen.output_uri

    def _look_at(self, job_id: str, seen: JobCounts | None, waiting: set[str]) -> None:
        if seen is not None and seen.state.is_final:
            return
        output_uri = seen.output_uri if seen else self._running.get(job_id)
        if output_uri is None:  # Redis names it but has lost all else; storage is not known here
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
            self._end(job_id, JobState.FAILED, f"{output.uri} no longer holds this job")
        elif output.has_ended():
            self._dispatcher.end(output, job_id)
            self._running.pop(job_id, None)
        elif seen is None:
            log.warning("job unknown to Redis is opened again from storage", job_id=job_id)
            self._dispatcher.start_again(output)
        elif output.read_plan() is None:
            self._prepare_lost(record, waiting)
        else:
            self._send_lost(output.load_job(), seen, waiting)

    def _prepare_lost(self, record: JobRecord, waiting: set[str]) -> None:
        if not self._is_under_way(PREPARE, record.job_id, waiting):
            log.warning("preparation is sent again", job_id=record.job_id)
            send_prepare(record.job_id, record.spec.output_uri)

    def _is_under_way(self, task: str, job_id: str, waiting: set[str]) -> bool:
        work = {PREPARE: PREPARATION, FINALIZE: FINALIZATION}[task]
        is_claimed = self._ledger.claims.holder(job_id, work) is not None
        return is_claimed or job_task_id(task, job_id) in waiting

    def _end(self, job_id: str, state: JobState, message: str) -> None:
        self._ledger.end_job(job_id, state, message, self._settings.keep_finished_s)
        self._running.pop(job_id, None)

    def _send_lost(self, job: Job, seen: JobCounts, waiting: set[str]) -> None:
        if seen.state is JobState.FINALIZING and self._is_under_way(FINALIZE, job.job_id, waiting):
            return
        # Between leaving the queue and taking its claim a shard is in neither; leave it that time.
        settled = self._ledger.now() - self._settings.reconcile_s
        for shard_index, due in self._ledger.in_flight(job.job_id).items():
            if due > settled or shard_task_id(job.job_id, shard_index) in waiting:
                continue
            if self._ledger.claims.holder(job.job_id, shard_index) is None:
                log.warning("shard is sent again", job_id=job.job_id, shard_index=shard_index)
                self._ledger.sent_again(job.job_id, shard_index)
                send_shard(job.shard(shard_index), job.spec.model_id)
        self._dispatcher.advance(job)

    def _waiting_task_ids(self) -> set[str]:
        messages = [message for queue in queues_of("all") for message in self._ledger.queued(queue)]
        return {task_id_of(message) for message in messages}
