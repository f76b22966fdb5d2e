"""A delivered shard: skipped when done, left alone when another has it, else run and committed."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from rankmill import dispatch
from rankmill.claim import Claim
from rankmill.errors import BrokerUnavailable, ClaimLost, JobUnknown, RankmillError
from rankmill.ledger import ledger
from rankmill.output import Job, Output
from rankmill.settings import settings
from rankmill.spec import ShardReport, ShardSpec
from worker import models
from worker.score import ShardWork
from worker.shard import run_shard
from worker.suspects import Suspects

log = logging.getLogger(__name__)


def deliver(shard: ShardSpec) -> None:
    """Run a shard if it is still wanted; a permanent error fails its job.

    Raises:
        TransientError: worth another try, by the caller.
    """
    job = _job_of(shard)
    if job is None:
        return
    try:
        report = _report_of(job, shard) or _run_claimed(job, shard)
    except ClaimLost as error:
        log.warning("%s", error)
        return
    except RankmillError as error:
        if error.transient:
            raise
        dispatch.fail(ledger(), settings(), job.record, error, shard.shard_index)
        return
    except Exception as error:  # a bug of ours or of a library: the same again would not help
        log.exception("shard %d of job %s", shard.shard_index, job.job_id)
        first_line = str(error).strip().partition("\n")[0]
        bug = RankmillError(f"unexpected {type(error).__name__}: {first_line}")
        dispatch.fail(ledger(), settings(), job.record, bug, shard.shard_index)
        return
    if report is not None:
        dispatch.finished(ledger(), settings(), job, report)


def _report_of(job: Job, shard: ShardSpec) -> ShardReport | None:
    report = job.output.read_report(shard.shard_index)
    return report if report is not None and report.job_id == job.job_id else None


def _job_of(shard: ShardSpec) -> Job | None:
    """The shard's job, or None where it has ended or its output belongs to a later one."""
    try:
        job = _planned_job(shard.output_uri, shard.job_id)
    except JobUnknown:
        if Output(shard.output_uri).read_job() is None:
            dispatch.end_unseen(ledger(), settings(), shard.job_id, shard.output_uri)
        return None
    return None if job.output.has_ended() else job


@lru_cache(maxsize=4)
def _planned_job(output_uri: str, job_id: str) -> Job:
    """A job's plan never changes, so it is read once.

    Raises:
        JobUnknown: the output holds no job of that id.
    """
    job = Output(output_uri).load_job()
    if job.job_id != job_id:
        raise JobUnknown(f"{output_uri}: no longer job {job_id}'s")
    return job


def _run_claimed(job: Job, shard: ShardSpec) -> ShardReport | None:
    claim = Claim.take(ledger().claims, shard.job_id, shard.shard_index, settings().claim_s)
    if claim is None:
        log.info("shard %d of job %s is being run elsewhere", shard.shard_index, job.job_id)
        return None
    with claim, _a_try(shard) as n_tries:
        log.info("job %s: shard %d is run", job.job_id, shard.shard_index)
        work = ShardWork(
            suspects=_suspects(shard, n_tries),
            model=models.load(job.spec),
            worker=f"{socket.gethostname()}:{os.getpid()}",
            window_pairs=settings().window_pairs,
            progress=claim.progress,
            scratch=settings().scratch,
            guard=lambda: _check_still_ours(job, claim),
        )
        return run_shard(job, shard, work)


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
    if n_tries <= settings().trusted_tries:
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


def give_up(shard: ShardSpec, error: RankmillError) -> None:
    """Fail the job of a shard whose transient error did not pass."""
    job = _job_of(shard)
    if job is not None:
        lasting = RankmillError(f"{error} (it did not pass)")
        dispatch.fail(ledger(), settings(), job.record, lasting, shard.shard_index)
