"""Change the course of a submitted job: cancel, resume, try its rejected rows again."""

from __future__ import annotations

from producer.follow import JobHandle
from rankmill import dispatch
from rankmill.errors import BrokerUnavailable, InputError
from rankmill.output import Job
from rankmill.settings import settings


def cancel(handle: JobHandle) -> None:
    """Stop a job within a shard; what was scored is kept, and `resume` goes on from it.

    Raises:
        InputError: it is over already.
    """
    if handle.output.has_ended():
        raise InputError(f"job {handle.job_id} is over: {handle.output.state()}")
    handle.ledger.check_writable()
    try:
        dispatch.cancel(handle.ledger, settings(), handle.output, handle.job_id)
    except BrokerUnavailable:
        # It is cancelled as soon as storage has it, and workers notice by themselves.
        if not handle.output.is_cancelled():
            raise


def resume(handle: JobHandle) -> None:
    """Run what has no report yet of a job that failed, was cancelled or was lost; else nothing.

    Twice at once is harmless: a shard is run by the one worker that has its claim.
    """
    counts = handle.ledger.counts(handle.job_id)
    is_alive = counts is not None and not counts.state.is_final
    is_done = handle.output.is_success() and not handle.output.lost_parts()
    if is_done or (is_alive and not handle.output.has_ended()):
        return
    handle.ledger.check_writable()
    with handle.output.kept_on_error():
        handle.output.reopen()
        dispatch.start_again(handle.ledger, settings(), handle.output)


def retry_rejects(handle: JobHandle) -> int:
    """Run the shards again that have rejects, and return how many these are.

    Raises:
        InputError: the job is still running.
    """
    job = handle.output.load_job()
    if not handle.output.has_ended():
        raise InputError(f"job {handle.job_id} is still running; retry its rejects when it is over")
    reports = handle.output.reports(job.job_id)
    shards = [report.shard_index for report in reports if report.n_rejected]
    if shards:
        _run_again(handle, job, shards)
    return len(shards)


def _run_again(handle: JobHandle, job: Job, shards: list[int]) -> None:
    handle.ledger.check_writable()
    with handle.output.kept_on_error(shards):
        handle.output.reopen()
        for shard_index in shards:
            handle.output.forget_shard(shard_index)
        dispatch.start(handle.ledger, settings(), job)
