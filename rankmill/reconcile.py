"""Find the work that a fault left without a worker, and send it again.

One worker scans for all, for as long as it renews its lease. Any other takes over a lease that has
expired. A scan reads Redis in a few round trips, and storage only for jobs that may have lost work.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor, wait

from rankmill.broker import lists_of, queues_of, send_prepare, send_shard, task_id_of
from rankmill.contract.job import JobRecord
from rankmill.contract.job_state import JobState
from rankmill.dispatch import Dispatcher
from rankmill.errors import (
    BrokerUnavailable,
    Declined,
    InputError,
    OutputNotReady,
    RankmillError,
    unexpected,
)
from rankmill.ledger.claims import FINALIZATION, PREPARATION
from rankmill.ledger.scanning import Lease, Scan, read_scan
from rankmill.logs import get_logger
from rankmill.lost_work import LostWork, lost_work
from rankmill.output.output import Output
from rankmill.output.plans import planned

log = get_logger(__name__)

# Bounds of one scan: jobs read from Redis, jobs read from storage, and how many of them at once.
_MAX_JOBS = 400
_MAX_CHECKED = 64
_N_THREADS = 8

# A job is remembered for this long after its last message, in case Redis loses it.
_REMEMBERED_S = 3600.0
# Another worker may see what this one does not, and needs some scans to confirm that work is lost.
_MAX_PERIODS_WITH_ERRORS = 6


class Reconciler:
    """Scans the running jobs; it remembers them, in case Redis loses them."""

    def __init__(self, dispatcher: Dispatcher, confirm_s: float | None = None) -> None:
        """Make a reconciler that has scanned nothing yet.

        Args:
            dispatcher: the transitions of jobs.
            confirm_s: seconds for which work must be missing before it counts as lost; by default
                most of the time between two scans.
        """
        self._dispatcher = dispatcher
        self._ledger = dispatcher.ledger
        self._period_s = dispatcher.settings.reconcile_s
        self._confirm_s = 0.8 * self._period_s if confirm_s is None else confirm_s
        self._lease = Lease(self._ledger.redis, "reconcile", 1.1 * self._period_s)
        self._running: dict[str, tuple[str, float]] = {}  # job id to output URI, and when
        self._scanned_at: dict[str, float] = {}
        # By job: each work that seems lost, with its due time and when it was first missing.
        self._missing: dict[str, dict[int, tuple[float, float]]] = {}
        self._late: dict[str, Future[bool]] = {}  # checks of an earlier scan that have not ended

    def remember(self, job_id: str, output_uri: str) -> None:
        """Scan a job from now on, even if Redis does not list it; safe from any thread."""
        self._running[job_id] = output_uri, time.monotonic()

    def scan(self) -> float:
        """Scan if this worker holds the lease; return the seconds until the next call.

        Work that has neither message, claim nor report in two scans is sent again. A job that Redis
        has lost is opened again. A job that cannot be scanned, for example because its storage is
        away, does not stop others.

        Raises:
            BrokerUnavailable: Redis does not answer.
        """
        began = time.monotonic()
        if not self._lease.hold():
            for job_id, (_, at) in list(self._running.items()):
                if began - at > _REMEMBERED_S:
                    self._running.pop(job_id, None)
            return 0.9 * self._period_s
        priorities, queues = self._ledger.priorities(), queues_of("all")
        job_ids = self._due(set(priorities))
        if not job_ids:
            self._lease.let_lapse()  # a cluster without jobs costs Redis as little as possible
            return 0.9 * self._period_s
        self._ledger.workers.forget_unseen(queues)
        found = read_scan(self._ledger.redis, job_ids, lists_of(queues), self._period_s)
        suspects = self._suspects(found, priorities, began)
        checked = dict(list(suspects.items())[:_MAX_CHECKED])
        scanned = found.jobs.keys() - suspects.keys() | checked.keys()
        self._scanned_at |= dict.fromkeys(scanned, began)
        is_complete = self._check_all(checked)
        if not is_complete and self._lease.held_for_s > _MAX_PERIODS_WITH_ERRORS * self._period_s:
            self._lease.release()
            return 2 * self._period_s
        return max(0.1 * self._period_s, self._period_s - (time.monotonic() - began))

    def _due(self, listed: set[str]) -> list[str]:
        """Return the jobs of this scan: those with missing work, and those scanned longest ago."""
        job_ids = listed | set(self._running)
        for job_id in set(self._missing) - job_ids:
            self._missing.pop(job_id, None)
        self._scanned_at = {each: self._scanned_at.get(each, 0.0) for each in job_ids}
        head_start = 10 * self._period_s

        def waits_since(job_id: str) -> float:
            return self._scanned_at[job_id] - (head_start if job_id in self._missing else 0.0)

        return sorted(job_ids, key=waits_since)[:_MAX_JOBS]

    def _suspects(
        self, found: Scan, priorities: dict[str, int], began: float
    ) -> dict[str, LostWork | None]:
        """Return the jobs to check on storage, with their lost work; None if Redis lost the job."""
        waiting = {task_id_of(message) for message in found.messages}
        n_workers, all_priorities = self._ledger.workers.n_live(), sum(priorities.values())
        suspects: dict[str, LostWork | None] = {}
        for job_id, job in found.jobs.items():
            if job.output_uri is not None:
                self._running[job_id] = job.output_uri, began
            if job.broken:
                log.warning("job's entry in Redis is broken", job_id=job_id, error=job.broken)
            if job.counts is None:
                suspects[job_id] = None
            elif job.counts.state.is_final:
                self._forget(job_id)
            else:
                priority = priorities.get(job_id, 1)
                window = self._dispatcher.window(priority, all_priorities, n_workers)
                settled = found.now - self._period_s
                lost = lost_work(job_id, job.counts, job, waiting, settled, window)
                sure = self._confirmed(job_id, lost, began)
                # Storage shows at once whether the job has ended; lost work is sent later.
                if sure or not lost.works.keys().isdisjoint((PREPARATION, FINALIZATION)):
                    suspects[job_id] = sure
        return suspects

    def _confirmed(self, job_id: str, lost: LostWork, now: float) -> LostWork:
        """Return the work that has been missing for long enough.

        Between leaving its queue and taking its claim, work is in neither.
        """
        before = self._missing.pop(job_id, {})
        missing = {
            work: (due, before[work][1] if before.get(work, (None,))[0] == due else now)
            for work, due in lost.works.items()
        }
        if missing:
            self._missing[job_id] = missing
        sure_at = now - self._confirm_s
        works = {work: due for work, (due, since) in missing.items() if since <= sure_at}
        return LostWork(works, lost.has_room)

    def _check_all(self, suspects: dict[str, LostWork | None]) -> bool:
        """Check jobs in parallel and keep the lease meanwhile; do not wait for late ones.

        A job whose storage hangs keeps a thread, and stops neither other jobs nor scans.

        Returns:
            Whether no job failed its check, and none hangs since an earlier scan.
        """
        self._late = {each: check for each, check in self._late.items() if not check.done()}
        if not suspects:
            return True
        none_hangs = self._late.keys().isdisjoint(suspects)
        until = time.monotonic() + self._period_s
        pool = ThreadPoolExecutor(_N_THREADS, thread_name_prefix="reconcile")
        checks = {
            job_id: pool.submit(self._check, job_id, lost)
            for job_id, lost in suspects.items()
            if job_id not in self._late
        }
        pending = set(checks.values())
        while pending and time.monotonic() < until:
            pending = wait(pending, timeout=self._period_s / 3).not_done
            if not self._lease.hold():
                break
        pool.shutdown(wait=False, cancel_futures=True)
        self._late |= {each: check for each, check in checks.items() if not check.done()}
        ended = [each for each in checks.values() if each.done() and not each.cancelled()]
        return all([each.result() for each in ended]) and none_hangs

    def _check(self, job_id: str, lost: LostWork | None) -> bool:
        """Check one job; its errors stop no other job. Return whether it could be checked."""
        if job_id not in self._running:  # Redis lists it and has lost all else
            return True
        output = Output(self._running[job_id][0])
        try:
            try:
                self._act(job_id, output, lost)
            except RankmillError as error:
                if error.blame != "job":
                    self._dispatcher.decline(job_id, output.uri, None, error)
                    return False
                if not isinstance(error, InputError):
                    raise
                log.error("job cannot continue", job_id=job_id, error=str(error))
                self._fail(job_id, str(error))  # it would be the same next time
        except BrokerUnavailable:
            raise
        except Declined:
            return False
        except RankmillError as error:
            log.warning("job cannot be scanned", job_id=job_id, error=str(error))
            return not error.transient
        except Exception as error:  # a bug must not stop the rescue of other jobs
            bug = str(unexpected(error))
            log.error("job cannot be scanned", job_id=job_id, error=bug, exc_info=True)
        return True

    def _act(self, job_id: str, output: Output, lost: LostWork | None) -> None:
        """End a job that has ended, open one that Redis has lost, or send its lost work."""
        record = output.read_job()
        try:
            self._ledger.check_in_place(job_id, record)
        except OutputNotReady:
            return
        if record is None and lost is None:
            self._forget(job_id)
        elif record is None:
            raise output.unseen(job_id)
        elif record.job_id != job_id:
            self._fail(job_id, f"{output.uri} no longer holds this job")
        elif output.has_ended():
            self._dispatcher.end(output, job_id)
            self._forget(job_id)
        elif not self._lease.is_held:
            return
        elif lost is None:
            log.warning("job unknown to Redis reopened from storage", job_id=job_id)
            self._dispatcher.start_again(output)
        else:
            self._send(record, output, lost)

    def _send(self, record: JobRecord, output: Output, lost: LostWork) -> None:
        """Send the lost work of a job again, and more of its shards if there is room."""
        job_id = record.job_id
        if PREPARATION in lost.works:
            log.warning("preparation sent again", job_id=job_id)
            send_prepare(job_id, output.uri)
        elif lost:
            job = planned(output, record)
            for shard_index, due in lost.works.items():
                if shard_index >= 0 and self._lease.may_send_again(job_id, shard_index, due):
                    log.warning("shard sent again", job_id=job_id, shard_index=shard_index)
                    send_shard(job.shard(shard_index), job.spec.model_id)
            if lost.has_room or FINALIZATION in lost.works:
                self._dispatcher.advance(job)
        for work in lost.works:  # it may be lost again, which is then new
            self._missing.get(job_id, {}).pop(work, None)

    def _fail(self, job_id: str, message: str) -> None:
        self._ledger.end_job(
            job_id, JobState.FAILED, message, self._dispatcher.settings.keep_finished_s
        )
        self._forget(job_id)

    def _forget(self, job_id: str) -> None:
        self._running.pop(job_id, None)
        self._missing.pop(job_id, None)
