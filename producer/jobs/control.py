"""Change the course of a submitted job: cancel, resume, try its rejected rows again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from producer.jobs.handle import JobHandle, JobStatus, succeeded
from producer.jobs.here import Follow, Say, last_of, run_here, say_nothing
from producer.jobs.submit import accepting, check, check_reject_rate, go_on
from rankmill.contract.job import JobSpec
from rankmill.dispatch import Dispatcher
from rankmill.errors import BrokerUnavailable, InputError, RankmillError
from rankmill.ledger.jobs import Ledger
from rankmill.output.local_run import Hold, check_free, hand_to_cluster, last_run
from rankmill.output.output import Output
from rankmill.settings import settings

Change = Callable[[JobHandle, Hold], object]


def runs_here(handle: JobHandle) -> bool:
    """Whether a job belongs to this machine alone, as one of `rankmill run` does, not to a cluster.

    That of an earlier release left no trace of its run: then it does where no RANKMILL_BROKER_URL
    is set and no Redis answers at the default address.
    """
    if last_run(handle.output) is not None:
        return True
    if "broker_url" in settings().model_fields_set:
        return False
    try:
        handle.ledger.n_workers()
    except BrokerUnavailable:
        return True
    return False


def check_not_elsewhere(output: Output) -> None:
    """Check that no `rankmill run`, nor the cluster of the settings if it answers, runs its job.

    For a run on this machine, before it starts anything.

    Raises:
        InputError: one does.
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
    """Stop a job within a shard; what was scored is kept, and `resume` goes on from it.

    Raises:
        InputError: it is over already.
        BrokerUnavailable: Redis does not answer, or takes no writes; nothing was changed.
    """
    if handle.output.has_ended():
        raise InputError(f"job {handle.job_id} is over: {handle.output.state()}")
    if not handle.is_reachable or (handle.run is None and runs_here(handle)):
        # Nobody works on it, or one on another machine, which looks at storage by itself.
        handle.output.mark_cancelled()
        return
    handle.ledger.check_writable()
    try:
        Dispatcher(handle.ledger, settings()).cancel(handle.output, handle.job_id)
    except BrokerUnavailable:
        # It is cancelled as soon as storage has it, and workers notice by themselves.
        if not handle.output.is_cancelled():
            raise


def resume(
    handle: JobHandle,
    hold: Hold | None = None,
    *,
    max_reject_rate: float | None = None,
    local: bool | None = None,
) -> None:
    """Run what has no report yet of a job that failed, was cancelled or was lost; else nothing.

    On a cluster it returns at once. On this machine it returns when the job has ended: it starts a
    private Redis and workers, and changes RANKMILL_BROKER_URL of this process for as long.
    Twice at once is harmless: a shard is run by the one worker that has its claim.

    Args:
        hold: of a run on this machine, whose private cluster the handle is on.
        local: on this machine or on the cluster of the settings; without it, where it ran before.
        max_reject_rate: instead of the job's own; where all rows are done nothing is scored again.

    Raises:
        JobFailed: it is finished, with more rejects than that; or it failed on this machine.
        OutputTaken: a `rankmill run` is at work on it.
        BrokerUnavailable: Redis does not answer, or takes no writes; nothing was changed.
    """
    if handle.output.is_success() and not handle.output.lost_parts():
        if max_reject_rate is not None:
            check_reject_rate(handle.output, max_reject_rate)
        return
    if hold is None and _goes_here(handle, local):
        change = partial(resume, max_reject_rate=max_reject_rate)
        succeeded(go_on_here(handle, change)[1])
        return
    counts = handle.ledger.counts(handle.job_id)
    is_alive = counts is not None and not counts.state.is_final
    if is_alive and not handle.output.has_ended():
        return
    record = handle.output.read_job()
    if record is None:
        raise handle.output.no_job()
    if max_reject_rate is not None:
        spec = record.spec.model_copy(update={"max_reject_rate": max_reject_rate})
        record = accepting(record, spec, _content_id(spec) or record.content_id)
    _take(handle, hold)
    go_on(Dispatcher(handle.ledger, settings()), handle.output, record)


def go_on_here(
    handle: JobHandle, change: Change, follow: Follow = last_of, say: Say = say_nothing
) -> tuple[JobHandle, JobStatus]:
    """Change the course of a job, and run what is then to be done on this machine."""
    check_not_elsewhere(handle.output)
    say(f"job {handle.job_id} goes on here, on this machine, as by rankmill run")

    def start(hold: Hold) -> JobHandle:
        here = JobHandle(handle.job_id, handle.output, Ledger.connect(settings()))
        change(here, hold)
        return here

    return run_here(start, follow, say)


def _goes_here(handle: JobHandle, local: bool | None) -> bool:
    return runs_here(handle) if local is None else local


def _content_id(spec: JobSpec) -> str | None:
    """The id by which the same command finds its job again; None where the input has gone."""
    try:
        return check(spec).record.content_id
    except RankmillError:
        return None


def retry_rejects(handle: JobHandle, hold: Hold | None = None, *, local: bool | None = None) -> int:
    """Run the shards again that have rejects, and return how many these are.

    Where it is done, and the arguments, are as in `resume`.

    Raises:
        InputError: the job is not over.
        OutputTaken: a `rankmill run` is at work on it.
        BrokerUnavailable: Redis does not answer, or takes no writes; nothing was changed.
    """
    shards = rejected_shards(handle)
    if not shards:
        return 0
    if hold is None and _goes_here(handle, local):
        succeeded(go_on_here(handle, retry_rejects)[1])
        return len(shards)
    job = handle.output.load_job()
    _take(handle, hold)
    with handle.output.kept_on_error(shards):
        handle.output.reopen()
        for shard_index in shards:
            handle.output.forget_shard(shard_index)
        Dispatcher(handle.ledger, settings()).start(job)
    return len(shards)


def rejected_shards(handle: JobHandle) -> list[int]:
    """The shards of a job that is over that have rejected rows.

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


def _take(handle: JobHandle, hold: Hold | None) -> None:
    """Make sure that nobody else works on the output, before anything is changed."""
    handle.ledger.check_writable()
    if hold is not None:
        hold.take(handle.output, handle.job_id, settings().broker_url)
    else:
        check_free(handle.output)
        hand_to_cluster(handle.output, handle.job_id)
