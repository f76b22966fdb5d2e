"""No shard is forgotten: what a fault left without a worker is found and sent again.

Every worker's main process looks regularly, so that there is no single point of failure; Redis
gives one of them each turn. A look is idempotent, and costs nothing where nothing is wrong.
"""

from __future__ import annotations

import json
import logging

from rankmill import dispatch
from rankmill.broker import SCORE_QUEUE, send_shard, shard_task_id
from rankmill.errors import JobUnknown
from rankmill.ledger import JobCounts, Ledger
from rankmill.output import Output
from rankmill.settings import Settings

log = logging.getLogger(__name__)


class Reconciler:
    """One process's regular look; it remembers running jobs, in case that Redis forgets them."""

    def __init__(self, ledger: Ledger, settings: Settings) -> None:
        self._ledger = ledger
        self._settings = settings
        self._running: dict[str, str] = {}  # job id to output URI

    def look(self) -> None:
        """Send again shards with neither message, live claim nor report; reopen forgotten jobs."""
        known = self._ledger.job_ids()
        counts = [self._ledger.counts(job_id) for job_id in self._ledger.priorities()]
        running = [each for each in counts if each is not None and not each.state.is_final]
        if self._ledger.take_turn("reconcile", self._settings.reconcile_s * 0.9):
            for job_id in self._running.keys() - set(known):
                self._reopen(job_id, self._running[job_id])
            waiting = _waiting_task_ids(self._ledger)
            for each in running:
                self._resend(each, waiting)
        self._running = {each.job_id: each.output_uri for each in running} | {
            job_id: uri for job_id, uri in self._running.items() if job_id not in known
        }

    def _reopen(self, job_id: str, output_uri: str) -> None:
        output = Output(output_uri)
        try:
            job = output.load_job()
        except JobUnknown:
            job = None
        if job is None or job.job_id != job_id or output.has_ended():
            del self._running[job_id]
            return
        log.warning("job %s is unknown to Redis; opened again from storage", job_id)
        dispatch.start(self._ledger, self._settings, job)

    def _resend(self, counts: JobCounts, waiting: set[str]) -> None:
        job = Output(counts.output_uri).load_job()
        # Between leaving the queue and taking its claim a shard is in neither; leave it that time.
        settled = self._ledger.now() - self._settings.reconcile_s
        for shard_index, sent_at in self._ledger.in_flight(job.job_id).items():
            if sent_at > settled or shard_task_id(job.job_id, shard_index) in waiting:
                continue
            if self._ledger.claim_owner(job.job_id, shard_index) is None:
                log.warning("job %s: shard %d is sent again", job.job_id, shard_index)
                self._ledger.sent_again(job.job_id, shard_index)
                send_shard(job.shard(shard_index))
        dispatch.advance(self._ledger, self._settings, job)


def _waiting_task_ids(ledger: Ledger) -> set[str]:
    return {json.loads(message)["headers"]["id"] for message in ledger.queued(SCORE_QUEUE)}
