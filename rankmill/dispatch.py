"""A job keeps a bounded window of shards in flight: each finished shard lets the next one in.

All of this may be called by anybody, at any time, any number of times.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime

from rankmill.broker import send_finalize, send_prepare, send_report, send_shard
from rankmill.contract.job import JobRecord, Plan
from rankmill.contract.job_state import JobState
from rankmill.contract.results import Failure, ShardReport
from rankmill.errors import BrokerUnavailable, RankmillError
from rankmill.ledger.jobs import Ledger
from rankmill.logs import get_logger
from rankmill.notify import end_event, failed_event, notify
from rankmill.output.output import Job, Output
from rankmill.settings import Settings

log = get_logger(__name__)


def start(ledger: Ledger, settings: Settings, job: Job) -> None:
    """Put a planned job to work, from whatever part of it stands on storage already."""
    ledger.open_job(job.record, job.plan, job.output.reports(job.job_id))
    advance(ledger, settings, job)


def prepare(ledger: Ledger, record: JobRecord) -> None:
    """Have a job's input turned into pairs, after which it is planned and started."""
    ledger.open_job(record, None, ())
    send_prepare(record.job_id, record.spec.output_uri)


def start_again(ledger: Ledger, settings: Settings, output: Output) -> None:
    """Put the job of an output to work, prepared or not.

    Raises:
        JobUnknown: no job was submitted there, or its submitter died before the plan was written.
    """
    record = output.read_job()
    if record is not None and record.prepares and output.read_plan() is None:
        prepare(ledger, record)
    else:
        start(ledger, settings, output.load_job())


def replace(
    ledger: Ledger, settings: Settings, output: Output, record: JobRecord, plan: Plan | None
) -> None:
    """Put a new job to work on an output that holds an earlier result, which is removed.

    Redis takes the job and its first messages before anything is removed, so that a failure leaves
    the result whole. A worker that comes to such a message too early puts it off.

    Raises:
        BrokerUnavailable: Redis does not take the job; nothing on storage was changed.
    """
    try:
        ledger.open_job(record, plan, (), replaces=True)
        if plan is None:
            send_prepare(record.job_id, output.uri)
        else:
            advance(ledger, settings, Job(record, plan, output))
        output.remove_result()
        if plan is not None:
            output.write_plan(plan)
        output.write_job(record)  # the last, since workers wait for it
    except BaseException:
        with suppress(BrokerUnavailable):
            ledger.forget_job(record.job_id)
        raise
    with suppress(BrokerUnavailable):  # it expires
        ledger.in_place(record.job_id)


def advance(ledger: Ledger, settings: Settings, job: Job) -> None:
    """Send the next shards of a running job, or its finalize once all are done."""
    counts = ledger.counts(job.job_id)
    if counts is None or counts.state not in (JobState.RUNNING, JobState.FINALIZING):
        return
    if counts.n_shards_done >= counts.n_shards:
        ledger.set_state(job.job_id, JobState.FINALIZING)
        send_finalize(job.job_id, job.output.uri)
        return
    capacity = settings.shards_per_worker * max(2, ledger.n_workers())
    window = window_for(job.spec.priority, ledger.priorities().values(), capacity)
    for shard_index in ledger.take_next(job.job_id, window):
        send_shard(job.shard(shard_index), job.spec.model_id)


def finished(ledger: Ledger, settings: Settings, job: Job, report: ShardReport) -> None:
    """Count a reported shard and let the next one in."""
    if ledger.finish_shard(report) is None:
        log.warning("job unknown to Redis is opened again from storage", job_id=job.job_id)
        start(ledger, settings, job)
        return
    advance(ledger, settings, job)


def fail(
    ledger: Ledger,
    settings: Settings,
    record: JobRecord,
    error: RankmillError,
    shard_index: int | None,
) -> None:
    """End a job without success; what was scored stays, and `failure.json` says why.

    Where not even that can be written, or the output is another job's by now, Redis alone knows it.
    """
    log.error("job failed", job_id=record.job_id, error=str(error))
    failure = Failure(
        job_id=record.job_id,
        message=str(error),
        exit_code=error.exit_code,
        shard_index=shard_index,
        failed_at=datetime.now(UTC),
        quotes_input=error.quotes_input,
    )
    output = Output(record.spec.output_uri)
    is_noted = False
    try:
        if output.holds(record.job_id):
            failure, is_noted = output.write_failure(failure), True
    except RankmillError as refused:
        log.error("failure.json cannot be written", job_id=record.job_id, error=str(refused))
    notify(failed_event(failure, output.uri, ledger.counts(record.job_id)))
    ledger.end_job(record.job_id, JobState.FAILED, failure.message, settings.keep_finished_s)
    if is_noted:
        _start_if_reopened(ledger, settings, output, record.job_id)
    send_report(record.job_id, output.uri)


def end(ledger: Ledger, settings: Settings, output: Output, job_id: str) -> None:
    """Tell what storage knows already, that a job is over: first the webhook, then Redis.

    Whoever dies between the two is followed by another, so that no end is kept back.
    """
    event = end_event(output, ledger.counts(job_id))
    if event is not None:
        notify(event)
    ledger.end_job(job_id, output.state(), "", settings.keep_finished_s)
    _start_if_reopened(ledger, settings, output, job_id)


def _start_if_reopened(ledger: Ledger, settings: Settings, output: Output, job_id: str) -> None:
    """Undo an end in Redis that storage no longer knows: somebody resumed the job in between."""
    if output.holds(job_id) and not output.has_ended():
        log.warning("job was resumed while its end was told", job_id=job_id)
        start_again(ledger, settings, output)


def end_unseen(ledger: Ledger, settings: Settings, job_id: str, output_uri: str) -> None:
    """End a job whose output is not here: Redis alone can be told, which its submitter sees too."""
    message = (
        f"{output_uri} does not hold job {job_id} on {socket.gethostname()}; every worker must see "
        "the same folder: share the disk, or use s3://"
    )
    log.error("job failed", job_id=job_id, error=message)
    failure = Failure(
        job_id=job_id,
        message=message,
        exit_code=1,
        shard_index=None,
        failed_at=datetime.now(UTC),
        quotes_input=False,
    )
    notify(failed_event(failure, output_uri, ledger.counts(job_id)))
    ledger.end_job(job_id, JobState.FAILED, message, settings.keep_finished_s)


def refuse(
    ledger: Ledger, settings: Settings, job_id: str, output_uri: str, error: RankmillError
) -> None:
    """End a job whose output may not be touched or cannot be read, as far as Redis knows it.

    A message that only claims to be of a job does not end it.
    """
    log.error("job refused", job_id=job_id, error=str(error))
    counts = ledger.counts(job_id)
    if counts is not None and counts.output_uri == output_uri:
        ledger.end_job(job_id, JobState.FAILED, str(error), settings.keep_finished_s)


def cancel(ledger: Ledger, settings: Settings, output: Output, job_id: str) -> None:
    """Stop a job: shards being run are let go before they publish, waiting ones are skipped."""
    output.mark_cancelled()
    ledger.end_job(job_id, JobState.CANCELLED, "", settings.keep_finished_s)
    _start_if_reopened(ledger, settings, output, job_id)
    send_report(job_id, output.uri)


def window_for(priority: int, priorities: Iterable[int], capacity: int) -> int:
    """A job's part of the shards that may be in flight; at least one.

    Work is served in the order in which it was sent and each finished shard is followed by one of
    the same job, so that jobs advance in the ratio of their windows.
    """
    return max(1, round(capacity * priority / max(priority, sum(priorities))))
