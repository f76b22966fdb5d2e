"""A delivered shard: skipped when done, left alone when another has it, else run and committed."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache

from structlog.contextvars import bound_contextvars

from rankmill.contract.job import Plan, ShardSpec
from rankmill.contract.results import ShardReport
from rankmill.dispatch import dispatcher
from rankmill.errors import (
    BrokerUnavailable,
    ClaimLost,
    DeviceFault,
    JobFailed,
    JobUnknown,
    RankmillError,
    unexpected,
)
from rankmill.ledger.claims import Claim
from rankmill.ledger.jobs import ledger
from rankmill.logs import get_logger
from rankmill.output.output import Job, Output
from rankmill.progress import ProgressEvents
from rankmill.settings import settings
from worker import models
from worker.device_errors import device_errors
from worker.liveness.device_record import DeviceRecord, device_record
from worker.shard.observer import Watch, watched
from worker.shard.poison import Suspects
from worker.shard.reader import RowReader
from worker.shard.run import run_shard
from worker.shard.score import ShardWork

log = get_logger(__name__)

# Devices that may fail in the middle of a shard before it is suspected of making them.
_TRUSTED_FAULTS = 2


def deliver(shard: ShardSpec, n_retries: int = 0) -> str:
    """Run a shard if it is still wanted; a permanent error fails its job. What became of it.

    Args:
        n_retries: times that it was put off for an error that may pass.

    Raises:
        DeviceFault: the device has failed, and this process must end.
        TransientError: worth another try, by the caller.
    """
    with bound_contextvars(job_id=shard.job_id, shard_index=shard.shard_index):
        try:
            job = _job_of(shard)
        except RankmillError as error:
            if error.transient:
                raise
            dispatcher().refuse(shard.job_id, shard.output_uri, error)
            return "refused"
        return "not wanted any more" if job is None else _deliver(job, shard, n_retries)


def _deliver(job: Job, shard: ShardSpec, n_retries: int) -> str:
    try:
        report = _report_of(job, shard) or _run_claimed(job, shard, n_retries)
    except ClaimLost as error:
        log.warning("claim is lost", error=str(error))
        return f"given up: {error}"
    except RankmillError as error:
        if error.transient:
            raise
        dispatcher().fail(job.record, error, shard.shard_index)
        return f"failed its job: {error}"
    except Exception as error:
        bug = unexpected(error)
        if bug.transient:
            raise bug from error
        log.exception("shard met a bug")  # the same again would not help
        dispatcher().fail(job.record, bug, shard.shard_index)
        return f"failed its job: {bug}"
    if report is None:
        return "left to the worker that has it"
    dispatcher().finish_shard(job, report)
    return _summary(report)


def _summary(report: ShardReport) -> str:
    rejected = f", {report.n_rejected:,} rejected" if report.n_rejected else ""
    return f"{report.n_scored:,} pairs scored{rejected}, {report.n_tokens:,} tokens"


def _report_of(job: Job, shard: ShardSpec) -> ShardReport | None:
    report = job.output.read_report(shard.shard_index)
    return report if report is not None and report.job_id == job.job_id else None


def _job_of(shard: ShardSpec) -> Job | None:
    """The shard's job, or None where it has ended or its output belongs to a later one."""
    output = Output(shard.output_uri)
    record = output.read_job()
    ledger().check_in_place(shard.job_id, record)
    if record is None:
        dispatcher().end_unseen(shard.job_id, output.uri)
    if record is None or record.job_id != shard.job_id or output.has_ended():
        return None
    try:
        return Job(record, _plan_of(output, record.job_id, record.submitted_at), output)
    except JobUnknown:
        return None


@lru_cache(maxsize=4)
def _plan_of(output: Output, job_id: str, submitted_at: datetime) -> Plan:
    """A job's plan never changes until the job is submitted anew, so it is read once.

    Raises:
        JobUnknown: no such job was planned.
    """
    plan = output.read_plan()
    if plan is None or plan.job_id != job_id:
        raise JobUnknown(f"{output.uri}: job {job_id} was not planned here")
    return plan


def _run_claimed(job: Job, shard: ShardSpec, n_retries: int) -> ShardReport | None:
    record = device_record()
    record.check()
    claim = Claim.take(ledger().claims, shard.job_id, shard.shard_index, settings().claim_s)
    if claim is None:
        log.info("shard is run elsewhere")
        return None
    with (
        claim,
        _a_try(shard) as n_tries,
        watched(shard),
        ProgressEvents.of_this_task("scoring") as events,
    ):
        log.info("shard is run", n_tries=n_tries)
        events.tell(_progress(shard, 0))
        suspects = _suspects(shard, n_tries)
        model = _proved(job, shard, record, is_suspect=suspects is not None)
        watch = Watch(claim, model)

        def progress(n_pairs: int, n_tokens: int) -> None:
            watch.progress(n_pairs, n_tokens)
            events.tell(_progress(shard, n_pairs))

        work = ShardWork(
            suspects=suspects,
            model=model,
            worker=f"{socket.gethostname()}:{os.getpid()}",
            window_pairs=settings().window_pairs,
            progress=progress,
            scratch=settings().scratch,
            n_deaths=n_tries - 1,
            n_retries=n_retries,
            guard=lambda: _check_still_ours(job, claim),
            reader=_reader(),
        )
        try:
            report = run_shard(job, shard, work)
        except DeviceFault as error:
            record.failed(_name(shard), str(error), at_its_proof=False)
            ledger().claims.note_fault(shard.job_id, shard.shard_index)
            raise
        record.worked()
        return watch.reported(report)


def _proved(
    job: Job, shard: ShardSpec, record: DeviceRecord, *, is_suspect: bool
) -> models.LoadedModel:
    """The job's model on a device that works; one that has failed must show that it does."""
    try:
        model = models.load(job.spec)
        if is_suspect or record.has_failed:
            with device_errors():
                model.scorer.prove()
    except DeviceFault as error:
        record.failed(_name(shard), str(error), at_its_proof=True)
        raise
    return model


def _name(shard: ShardSpec) -> str:
    return f"{shard.job_id}/{shard.shard_index}"


def _progress(shard: ShardSpec, n_pairs: int) -> str:
    return f"{n_pairs:,} of {shard.stop_row - shard.start_row:,} pairs"


@lru_cache(maxsize=1)
def _reader() -> RowReader:
    """The process's own: shards mostly come in their order."""
    return RowReader()


@contextmanager
def _a_try(shard: ShardSpec) -> Iterator[int]:
    """Count a start until its end, so that what stays counted is deaths; yields the count."""
    claims = ledger().claims
    n_tries = claims.begin_try(shard.job_id, shard.shard_index)
    try:
        yield n_tries
    finally:
        try:
            claims.end_try(shard.job_id, shard.shard_index)
        except BrokerUnavailable:
            pass  # one death too many is counted, which costs a little care


def _suspects(shard: ShardSpec, n_tries: int) -> Suspects | None:
    """None for a shard that may be run as usual.

    Raises:
        RankmillError: it was started too often.
    """
    n_faults = ledger().claims.n_faults(shard.job_id, shard.shard_index)
    if n_tries <= settings().trusted_tries and n_faults < _TRUSTED_FAULTS:
        return None
    suspects = Suspects.of(ledger().claims, shard)
    if n_tries - suspects.n_deaths > settings().max_tries:
        raise RankmillError(
            f"shard {shard.shard_index} killed its worker {n_tries - 1} times before any row "
            "was scored; is the machine's memory too small for the model?"
        )
    return suspects


def _check_still_ours(job: Job, claim: Claim) -> None:
    """Raise ClaimLost where the shard, the output or all of the job is no longer ours."""
    claim.check()
    record = job.output.read_job()
    if record is None or record.job_id != job.job_id or job.output.has_ended():
        raise ClaimLost(f"{job.output.uri} no longer waits for a shard of job {job.job_id}")


def put_off(shard: ShardSpec, for_s: float) -> None:
    """Tell reconcile that a shard waits for its next try, so that it is not sent besides."""
    try:
        ledger().sent_again(shard.job_id, shard.shard_index, in_s=for_s)
    except BrokerUnavailable:
        pass  # then it is sent twice, which its claim makes harmless


def give_up(shard: ShardSpec, error: RankmillError) -> str:
    """Fail the job of a shard whose transient error did not pass. What became of it."""
    with bound_contextvars(job_id=shard.job_id, shard_index=shard.shard_index):
        job = _job_of(shard)
        if job is None:
            return "not wanted any more"
        lasting = JobFailed(f"{error} (it did not pass)")
        dispatcher().fail(job.record, lasting, shard.shard_index)
        return f"failed its job: {lasting}"
