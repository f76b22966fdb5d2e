"""Deliver a shard: skip it if done, leave it to a worker that has it, else run and commit it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from rankmill import storage
from rankmill.contract.plan import ShardSpec
from rankmill.contract.results import ShardReport
from rankmill.dispatch import dispatcher
from rankmill.errors import (
    BrokerUnavailable,
    ClaimLost,
    Declined,
    DeviceFault,
    HostUnfit,
    JobUnknown,
    PutBehind,
    RankmillError,
)
from rankmill.guard import attempt
from rankmill.ledger.claims import Claim
from rankmill.ledger.jobs import ledger
from rankmill.logs import get_logger
from rankmill.output.output import Job, Output
from rankmill.output.plans import planned
from rankmill.progress import ProgressEvents
from rankmill.settings import settings
from worker import models
from worker.device_errors import device_errors
from worker.liveness.device_record import DeviceRecord, device_record
from worker.metrics.counters import meters
from worker.preference import preference
from worker.shard.observer import Watch, watched
from worker.shard.poison import Suspects
from worker.shard.reader import RowReader
from worker.shard.run import run_shard
from worker.shard.score import ShardWork

log = get_logger(__name__)

# Devices may fail this often in the middle of a shard before the shard is the suspect.
_TRUSTED_FAULTS = 2

# One reader for the process, since a worker's shards mostly come in order.
_reader = lru_cache(maxsize=1)(RowReader)


def deliver(shard: ShardSpec, n_retries: int = 0) -> str:
    """Run a shard that is still wanted and return the outcome; a permanent error fails its job.

    Args:
        shard: the shard of the message.
        n_retries: earlier tries that ended with a transient error.

    Raises:
        DeviceFault: the device has failed, and this process must end.
        Declined: this host cannot do it.
        PutBehind: other shards need the model that is loaded.
        TransientError: a retry may help.
    """
    with (
        _declines_counted(),
        attempt(dispatcher(), shard.job_id, shard.output_uri, shard.shard_index) as tried,
    ):
        job = _wanted_job(shard)
        if job is None:
            return "not wanted any more"
        tried.record = job.record
        report = job.output.read_report(shard.shard_index)
        if report is None or report.job_id != job.job_id:
            if preference().is_for_later(job.job_id, job.spec, shard.shard_index):
                raise PutBehind("shards of the loaded model come first")
            report = _run_claimed(job, shard, n_retries)
        if report is None:
            return "left to the worker that has it"
        dispatcher().finish_shard(job, report)
        rejected = f", {report.n_rejected:,} rejected" if report.n_rejected else ""
        return f"{report.n_scored:,} pairs scored{rejected}, {report.n_tokens:,} tokens"
    return tried.outcome


@contextmanager
def _declines_counted() -> Iterator[None]:
    try:
        yield
    except Declined:
        meters().shard("declined")
        raise


def put_off(shard: ShardSpec, for_s: float) -> None:
    """Note that a shard is retried in `for_s` seconds, so that reconcile does not send it too."""
    try:
        ledger().sent_again(shard.job_id, shard.shard_index, in_s=for_s)
    except BrokerUnavailable:
        pass  # then it is sent twice, which its claim makes harmless


def give_up(shard: ShardSpec, error: RankmillError) -> str:
    """Decline a shard whose retries did not help; return the outcome if the job has ended.

    Raises:
        Declined: another host may do it.
    """
    with attempt(dispatcher(), shard.job_id, shard.output_uri, shard.shard_index) as tried:
        job = _wanted_job(shard)
        if job is None:
            return "not wanted any more"
        tried.record = job.record
        raise HostUnfit(f"{error} (retries did not help)")
    return tried.outcome


def _wanted_job(shard: ShardSpec) -> Job | None:
    """Return the shard's job, or None if it has ended or its output belongs to a later one.

    Raises:
        HostUnfit: this host does not see the output.
    """
    output = Output(shard.output_uri)
    record = output.read_job()
    ledger().check_in_place(shard.job_id, record)
    if record is None:
        raise output.unseen(shard.job_id)
    if record.job_id != shard.job_id or output.has_ended():
        return None
    try:
        return planned(output, record)
    except JobUnknown:
        return None


def _run_claimed(job: Job, shard: ShardSpec, n_retries: int) -> ShardReport | None:
    """Run a shard under its claim and return its report; None while another worker has it."""
    devices, claims = device_record(), ledger().claims
    devices.check()
    _check_writable(job.output, job.job_id)
    claim = Claim.take(claims, shard.job_id, shard.shard_index, settings().claim_s)
    if claim is None:
        log.info("shard is running elsewhere")
        return None
    with (
        claim,
        claims.counted_try(shard.job_id, shard.shard_index) as n_tries,
        watched(shard),
        ProgressEvents.of_this_task("scoring") as events,
    ):
        log.info("shard started", n_tries=n_tries)
        n_rows = shard.stop_row - shard.start_row
        events.show(f"0 of {n_rows:,} pairs")
        suspects = _suspects(shard, n_tries)
        model = _load_working(job, shard, devices, is_suspect=suspects is not None)
        watch = Watch(claim, model)

        def progress(n_pairs: int, n_tokens: int) -> None:
            watch.progress(n_pairs, n_tokens)
            events.show(f"{n_pairs:,} of {n_rows:,} pairs")

        def check_still_ours() -> None:
            claim.check()
            record = job.output.read_job()
            if record is None:
                raise job.output.unseen(job.job_id)
            if record.job_id != job.job_id or job.output.has_ended():
                raise ClaimLost(f"{job.output.uri} no longer waits for a shard of job {job.job_id}")

        work = ShardWork(
            suspects=suspects,
            model=model,
            worker=f"{socket.gethostname()}:{os.getpid()}",
            window_pairs=settings().window_pairs,
            progress=progress,
            scratch=settings().scratch,
            n_deaths=n_tries - 1,
            n_retries=n_retries,
            guard=check_still_ours,
            reader=_reader(),
        )
        try:
            report = run_shard(job, shard, work)
        except DeviceFault as error:
            devices.failed(_name(shard), str(error), at_its_proof=False)
            claims.note_fault(shard.job_id, shard.shard_index)
            raise
        devices.worked()
        return watch.reported(report)


@lru_cache(maxsize=4)
def _check_writable(output: Output, job_id: str) -> None:
    """Check once that a job's parts can be written here, before a shard is scored for nothing.

    Raises:
        StorageRefused: they cannot.
    """
    storage.check_conditional_puts(output.uri)


def _suspects(shard: ShardSpec, n_tries: int) -> Suspects | None:
    """Return the record of a shard that may kill workers, or None for one that is trusted.

    Raises:
        RankmillError: it was started too often.
    """
    claims = ledger().claims
    n_faults = claims.n_faults(shard.job_id, shard.shard_index)
    if n_tries <= settings().trusted_tries and n_faults < _TRUSTED_FAULTS:
        return None
    suspects = Suspects.of(claims, shard)
    if n_tries - suspects.n_deaths > settings().max_tries:
        raise RankmillError(
            f"shard {shard.shard_index} killed its worker {n_tries - 1} times before any row "
            "was scored; is the machine's memory too small for the model?"
        )
    return suspects


def _load_working(
    job: Job, shard: ShardSpec, devices: DeviceRecord, *, is_suspect: bool
) -> models.LoadedModel:
    """Load the job's model; test the device with a full batch if it has failed before."""
    try:
        model = models.load(job.spec, f"{job.job_id} {job.record.submitted_at}")
        preference().loaded(job.job_id, job.spec)
        if is_suspect or devices.has_failed:
            with device_errors():
                model.scorer.prove()
    except DeviceFault as error:
        devices.failed(_name(shard), str(error), at_its_proof=True)
        raise
    return model


def _name(shard: ShardSpec) -> str:
    return f"{shard.job_id}/{shard.shard_index}"
