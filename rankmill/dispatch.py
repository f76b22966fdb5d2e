"""A job keeps a bounded window of shards in flight, and no shard is forgotten.

`advance` sends the next shards when one finishes; `reconcile` finds those that nobody works on
after a fault. Both may be called by anybody, at any time, any number of times.
"""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime

from rankmill.broker import SCORE_QUEUE, send_finalize, send_shard, shard_task_id
from rankmill.ledger import JobCounts, Ledger
from rankmill.lifecycle import JobState
from rankmill.output import Job, Output
from rankmill.settings import Settings
from rankmill.spec import Failure, ShardReport

log = logging.getLogger(__name__)


def start(ledger: Ledger, settings: Settings, job: Job) -> None:
    """Put a planned job to work, from whatever part of it stands on storage already."""
    ledger.open_job(job.record, job.plan, job.output.reports())
    advance(ledger, settings, job)


def advance(ledger: Ledger, settings: Settings, job: Job) -> None:
    """Send the next shards of a running job, or its finalize once all are done."""
    counts = ledger.counts(job.job_id)
    if counts is None or counts.state.is_final:
        return
    if counts.n_shards_done >= counts.n_shards:
        ledger.set_state(job.job_id, JobState.FINALIZING)
        send_finalize(job.job_id, job.output.uri)
        return
    window = settings.shards_per_worker * max(2, ledger.n_workers())
    for shard_index in ledger.take_next(job.job_id, window):
        send_shard(job.shard(shard_index))


def finished(ledger: Ledger, settings: Settings, job: Job, report: ShardReport) -> None:
    """Count a reported shard and let the next one in."""
    if ledger.finish_shard(report) is None:
        log.warning("job %s is unknown to Redis; opened again from storage", job.job_id)
        start(ledger, settings, job)
        return
    advance(ledger, settings, job)


def fail(
    ledger: Ledger, settings: Settings, job: Job, message: str, shard_index: int | None
) -> None:
    """End a job without success; what was scored stays, and `failure.json` says why."""
    log.error("job %s failed: %s", job.job_id, message)
    failure = Failure(
        job_id=job.job_id, message=message, shard_index=shard_index, failed_at=datetime.now(UTC)
    )
    job.output.write_failure(failure)
    ledger.set_state(job.job_id, JobState.FAILED, message)
    ledger.forget_later(job.job_id, settings.keep_finished_s)


def reconcile(ledger: Ledger, settings: Settings) -> None:
    """Send again what is in flight with neither a message, a live claim nor a report."""
    if not ledger.take_turn("reconcile", settings.reconcile_s * 0.9):
        return
    waiting = _waiting_task_ids(ledger)
    for job_id in ledger.job_ids():
        counts = ledger.counts(job_id)
        if counts is not None and not counts.state.is_final:
            _reconcile_job(ledger, settings, counts, waiting)


def _reconcile_job(
    ledger: Ledger, settings: Settings, counts: JobCounts, waiting: set[str]
) -> None:
    job = Output(counts.output_uri).load_job()
    # A message is on its way from the queue to its claim for a moment; leave it that time.
    settled = time.time() - settings.reconcile_s
    for shard_index, sent_at in ledger.in_flight(job.job_id).items():
        if sent_at > settled or shard_task_id(job.job_id, shard_index) in waiting:
            continue
        if ledger.claim_owner(job.job_id, shard_index) is None:
            log.warning("job %s: shard %d is sent again", job.job_id, shard_index)
            ledger.sent_again(job.job_id, shard_index)
            send_shard(job.shard(shard_index))
    advance(ledger, settings, job)


def _waiting_task_ids(ledger: Ledger) -> set[str]:
    return {json.loads(message)["headers"]["id"] for message in ledger.queued(SCORE_QUEUE)}
