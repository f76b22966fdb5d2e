"""A delivered shard: skipped when done, left alone when another has it, else run and committed."""

from __future__ import annotations

import logging
import os
import socket
from functools import lru_cache
from pathlib import Path

from rankmill import dispatch
from rankmill.errors import ClaimLost, JobUnknown, RankmillError
from rankmill.ledger import Ledger
from rankmill.output import Job, Output
from rankmill.settings import settings
from rankmill.spec import ShardReport, ShardSpec
from worker import models
from worker.claim import Claim
from worker.score import ShardWork
from worker.shard import run_shard
from worker.suspects import Suspects

log = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def ledger() -> Ledger:
    """The process's connection to the ledger."""
    return Ledger.connect(settings())


def deliver(shard: ShardSpec) -> None:
    """Run a shard if it is still wanted; a permanent error fails its job.

    Raises:
        TransientError: worth another try, by the caller.
    """
    job = _job_of(shard)
    if job is None:
        return
    try:
        report = job.output.read_report(shard.shard_index) or _run_claimed(job, shard)
    except ClaimLost as error:
        log.warning("%s", error)
        return
    except RankmillError as error:
        if error.transient:
            raise
        dispatch.fail(ledger(), settings(), job, str(error), shard.shard_index)
        return
    except Exception as error:  # a bug of ours or of a library: the same again would not help
        log.exception("shard %d of job %s", shard.shard_index, job.job_id)
        first_line = str(error).strip().partition("\n")[0]
        message = f"shard {shard.shard_index}: unexpected {type(error).__name__}: {first_line}"
        dispatch.fail(ledger(), settings(), job, message, shard.shard_index)
        return
    if report is not None:
        dispatch.finished(ledger(), settings(), job, report)


def _job_of(shard: ShardSpec) -> Job | None:
    """The shard's job, or None where it has ended or its output belongs to a later one."""
    try:
        job = _planned_job(shard.output_uri, shard.job_id)
    except JobUnknown:
        return None
    if job.job_id != shard.job_id or job.output.has_ended():
        return None
    return job


@lru_cache(maxsize=4)
def _planned_job(output_uri: str, job_id: str) -> Job:
    """A job's plan never changes, so it is read once; `job_id` tells a later job's apart."""
    return Output(output_uri).load_job()


def _run_claimed(job: Job, shard: ShardSpec) -> ShardReport | None:
    claim = _claim(shard)
    if claim is None:
        log.info("shard %d of job %s is being run elsewhere", shard.shard_index, job.job_id)
        return None
    with claim:
        log.info("job %s: shard %d is run", job.job_id, shard.shard_index)
        work = ShardWork(
            model=models.load(job.spec),
            worker=_me(),
            window_pairs=settings().window_pairs,
            progress=claim.progress,
            guard=lambda: _check_still_ours(job, claim),
            suspects=_suspects(shard),
        )
        return run_shard(job, shard, work)


def _claim(shard: ShardSpec) -> Claim | None:
    claim = Claim.take(ledger(), shard, _me(), settings().claim_s)
    if claim is None and _is_dead(ledger().claim_owner(shard.job_id, shard.shard_index)):
        ledger().break_claim(shard.job_id, shard.shard_index)
        claim = Claim.take(ledger(), shard, _me(), settings().claim_s)
    return claim


def _me() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _is_dead(owner: str | None) -> bool:
    """Whether a claim's holder was a process of this machine that is gone."""
    host, _, pid = (owner or "").rpartition(":")
    return host == socket.gethostname() and not Path("/proc", pid).exists()


def _suspects(shard: ShardSpec) -> Suspects | None:
    """None for a shard that may be run as usual.

    Raises:
        RankmillError: it was started too often.
    """
    tries = ledger().count_try(shard.job_id, shard.shard_index)
    if tries <= settings().trusted_tries:
        return None
    suspects = Suspects.of(ledger(), shard)
    if tries - len(suspects.deadly) > settings().max_tries:
        raise RankmillError(
            f"shard {shard.shard_index} was started {tries - 1} times and never finished"
        )
    return suspects


def _check_still_ours(job: Job, claim: Claim) -> None:
    """Raise ClaimLost where the shard, the output or all of the job is no longer ours."""
    claim.check()
    record = job.output.read_job()
    if record is None or record.job_id != job.job_id or job.output.has_ended():
        raise ClaimLost(f"{job.output.uri} no longer waits for a shard of job {job.job_id}")


def give_up(shard: ShardSpec, error: RankmillError) -> None:
    """Fail the job of a shard whose transient error did not pass."""
    job = _job_of(shard)
    if job is not None:
        dispatch.fail(ledger(), settings(), job, f"{error} (it did not pass)", shard.shard_index)
