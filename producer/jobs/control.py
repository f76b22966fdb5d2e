"""Change the course of a submitted job: cancel it, resume it, retry its rejected rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from producer.jobs.check import check
from producer.jobs.handle import JobHandle
from producer.jobs.local_run import Follow, Say, last_of, run_locally, say_nothing
from producer.jobs.status import JobStatus, succeeded
from producer.jobs.submit import accepting, check_reject_rate, continue_job, take_output
from rankmill.dispatch import Dispatcher
from rankmill.errors import BrokerUnavailable, InputError, RankmillError
from rankmill.ledger.jobs import Ledger
from rankmill.ledger.server import check_takes_writes
from rankmill.output import cleanup
from rankmill.output.local_run import Hold, check_free, last_run
from rankmill.output.output import Output
from rankmill.settings import settings

Change = Callable[[JobHandle, Hold], object]


def is_local(handle: JobHandle) -> bool:
    """Return whether a job belongs to this machine alone, as those of `rankmill run` do.

    A job of an earlier release has no trace of its run. It is local where RANKMILL_BROKER_URL is
    not set and no Redis answers at the default address.
    """
    if last_run(handle.output) is not None:
        return True
    if "broker_url" in settings().model_fields_set:
        return False
    try:
        handle.ledger.workers.n_live()
    except BrokerUnavailable:
        return True
    return False


def check_not_elsewhere(output: Output) -> None:
    """Check that no other run, and not the cluster of the settings, works on the output.

    A run on this machine calls it before it starts anything.

    Raises:
        OutputTaken: another `rankmill run` works on it.
        InputError: the cluster works on it.
    """
    check_free(output)
    record = output.read_job()
    if record is None or output.has_ended() or last_run(output) is not None:
        return
    try:
        counts = Ledger.connect(settings()).counts(record.job_id)
    except BrokerUnavailable:
        return
    if counts is not None and not counts.state.is_final:
        raise InputError(
            f"{output.uri}: job {record.job_id} is running there, on a cluster; wait for its end, "
            f"or rankmill cancel {output.uri}"
        )


def cancel(handle: JobHandle) -> None:
    """Stop a job within a shard; its scores are kept, and `resume` continues it.

    Args:
        handle: the job.

    Raises:
        InputError: it is over already, or ended before it could be cancelled.
        BrokerUnavailable: Redis does not answer, or refuses writes; nothing was changed.
    """
    if handle.output.has_ended():
        raise InputError(f"job {handle.job_id} is over: {handle.output.state()}")
    if not handle.is_reachable or (handle.run is None and is_local(handle)):
        # Nobody works on it, or a run on another machine, which reads the mark from storage.
        is_cancelled = handle.output.mark_cancelled()
    else:
        check_takes_writes(handle.ledger.redis)
        try:
            dispatcher = Dispatcher(handle.ledger, settings())
            is_cancelled = dispatcher.cancel(handle.output, handle.job_id)
        except BrokerUnavailable:
            # The mark on storage cancels it, and workers read it there.
            is_cancelled = handle.output.is_cancelled()
            if not is_cancelled:
                raise
    if not is_cancelled:
        raise InputError(f"job {handle.job_id} is over: {handle.output.state()}")


def resume(
    handle: JobHandle,
    hold: Hold | None = None,
    *,
    max_reject_rate: float | None = None,
    local: bool | None = None,
) -> None:
    """Run the unfinished shards of a failed, cancelled or lost job.

    On a cluster it returns at once. On this machine it starts a private Redis and workers, and
    returns when the job has ended; meanwhile it changes RANKMILL_BROKER_URL of this process.
    Two calls at once are harmless: one worker has the claim on a shard, and runs it.

    Args:
        handle: the job.
        hold: that of a run on this machine, whose private cluster the handle is on.
        max_reject_rate: replaces the job's own. Where all rows are done, none is scored again.
        local: run on this machine or on the cluster of the settings; None: where it ran before.

    Raises:
        InputError: `max_reject_rate` is not a share.
        JobFailed: it is finished with more rejects than that, or failed on this machine.
        OutputTaken: a `rankmill run` works on it.
        BrokerUnavailable: Redis does not answer, or refuses writes; nothing was changed.
    """
    if max_reject_rate is not None and not 0 <= max_reject_rate <= 1:
        raise InputError(f"--max-reject-rate {max_reject_rate:g}: give a share from 0 to 1")
    if handle.output.is_success() and not handle.output.lost_parts():
        if max_reject_rate is not None:
            check_reject_rate(handle.output, max_reject_rate)
        return
    if hold is None and (is_local(handle) if local is None else local):
        change = partial(resume, max_reject_rate=max_reject_rate)
        succeeded(continue_locally(handle, change)[1])
        return
    counts = handle.ledger.counts(handle.job_id)
    is_live = counts is not None and not counts.state.is_final
    if is_live and not handle.output.has_ended():
        return
    record = handle.output.read_job()
    if record is None:
        raise handle.output.no_job()
    if max_reject_rate is not None:
        spec = record.spec.model_copy(update={"max_reject_rate": max_reject_rate})
        try:
            content_id = check(spec).record.content_id  # by which the same command finds the job
        except RankmillError:  # the input has gone
            content_id = None
        record = accepting(record, spec, content_id or record.content_id)
    check_takes_writes(handle.ledger.redis)
    take_output(handle, hold)
    continue_job(Dispatcher(handle.ledger, settings()), handle.output, record)


def retry_rejects(handle: JobHandle, hold: Hold | None = None, *, local: bool | None = None) -> int:
    """Run the shards with rejected rows again, and return their number.

    Args:
        handle: the job.
        hold: as in `resume`.
        local: as in `resume`.

    Raises:
        InputError: the job is not over.
        JobFailed: it failed on this machine.
        OutputTaken: a `rankmill run` works on it.
        BrokerUnavailable: Redis does not answer, or refuses writes; nothing was changed.
    """
    shards = rejected_shards(handle)
    if not shards:
        return 0
    if hold is None and (is_local(handle) if local is None else local):
        succeeded(continue_locally(handle, retry_rejects)[1])
        return len(shards)
    job = handle.output.load_job()
    check_takes_writes(handle.ledger.redis)
    take_output(handle, hold)
    with cleanup.restored_on_error(handle.output, shards):
        cleanup.reopen(handle.output)
        for shard_index in shards:
            handle.output.forget_shard(shard_index)
        Dispatcher(handle.ledger, settings()).start(job)
    return len(shards)


def rejected_shards(handle: JobHandle) -> list[int]:
    """Return the indices of the shards with rejected rows.

    Raises:
        InputError: the job is not over.
    """
    job = handle.output.load_job()
    if not handle.output.has_ended():
        run = last_run(handle.output)
        if run is not None and not run.is_alive:
            raise InputError(
                f"job {handle.job_id} was interrupted; rankmill resume {handle.output.uri} first"
            )
        raise InputError(f"job {handle.job_id} is still running; retry its rejects when it is over")
    return [each.shard_index for each in handle.output.reports(job.job_id) if each.n_rejected]


def continue_locally(
    handle: JobHandle, change: Change, follow: Follow = last_of, say: Say = say_nothing
) -> tuple[JobHandle, JobStatus]:
    """Change the course of a job, and run the work that results on this machine.

    Args:
        handle: the job.
        change: `resume`, `retry_rejects` or a call of one with further arguments.
        follow: as in `run_locally`.
        say: as in `run_locally`.

    Raises:
        InputError: as `check_not_elsewhere` and `run_locally`.
        OutputTaken: another `rankmill run` works on it.
    """
    check_not_elsewhere(handle.output)
    say(f"job {handle.job_id} continues on this machine, as by rankmill run")

    def start(hold: Hold) -> JobHandle:
        here = JobHandle(handle.job_id, handle.output, Ledger.connect(settings()))
        change(here, hold)
        return here

    return run_locally(start, follow, say)
