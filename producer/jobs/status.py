"""The status of a job: from Redis while it runs, from storage otherwise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, ConfigDict

from rankmill.broker import CONTROL_QUEUE, score_queue
from rankmill.contract.job import JobRecord
from rankmill.contract.job_state import JobState
from rankmill.contract.results import Failure, Manifest
from rankmill.errors import EntryBroken, JobFailed
from rankmill.ledger.counts import JobCounts
from rankmill.ledger.declines import Decline, reasons_by_host
from rankmill.ledger.jobs import Ledger
from rankmill.ledger.scanning import read_scan
from rankmill.output.output import Output
from rankmill.spans import covered_s


class JobStatus(BaseModel):
    """The state and the progress of a job; `status --json` prints it.

    Attributes:
        message: the cause of a failure.
        exit_code: the exit code of the job's commands; None until the job ends.
        started_at: when its first shard began, since the last submit or resume.
        progress_at: when the last pair was scored.
        scoring_s: seconds in which at least one shard ran, in any worker; None until it succeeded.
        pairs_per_s: pairs per second of scoring, without idle time.
        busy_share: the share of the shards' time in which devices computed.
        reason: why it failed, waits, was interrupted or has an unknown state, or why some hosts
            decline it.
    """

    model_config = ConfigDict(frozen=True)

    job_id: str
    state: JobState
    output_uri: str
    n_shards: int
    n_shards_done: int
    n_rows: int
    n_pairs_done: int
    n_tokens: int
    n_rejected: int
    message: str
    control_uri: str | None = None
    exit_code: int | None = None
    n_reused: int = 0
    no_reuse: str = ""
    model_id: str = ""
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    progress_at: datetime | None = None
    ended_at: datetime | None = None
    scoring_s: float | None = None
    pairs_per_s: float | None = None
    eta_s: int | None = None
    reason: str = ""
    busy_share: float | None = None


def succeeded(status: JobStatus) -> JobStatus:
    """Return the final status of a job that did not fail.

    Raises:
        JobFailed: it failed or was cancelled.
    """
    if not status.state.is_success:
        why = f": {status.reason}" if status.reason else ""
        raise JobFailed(f"job {status.job_id} {status.state}{why}", status.exit_code or 1)
    return status


@dataclass(frozen=True)
class _Sums:
    """The sums over a job's shard reports, with the times of its scoring."""

    n_shards: int
    n_shards_done: int
    n_rows: int
    n_pairs_done: int
    n_tokens: int
    n_rejected: int
    n_reused: int
    no_reuse: str = ""
    started_at: datetime | None = None
    progress_at: datetime | None = None
    scoring_s: float | None = None


def status_from_storage(output: Output, counts: JobCounts | None = None) -> JobStatus:
    """Return the status that the output folder gives.

    Args:
        output: the job's output.
        counts: its counts in Redis, if Redis knows it. They save reading each shard's report.

    Raises:
        JobUnknown: no job was submitted there.
    """
    state = output.state()
    record = output.read_job()
    if record is None:
        raise output.no_job()
    failure = None if state.is_success else output.read_failure()
    message = failure.message if failure else "" if state.is_success else output.loss()
    manifest = output.read_manifest() if failure is None and state.is_final else None
    sums = (
        (_sums_of_manifest(output, record, manifest) if manifest else None)
        or (_sums_of_redis(output, record, counts) if counts else None)
        or _sums_of_reports(output, record)
    )
    scoring_s = sums.scoring_s if state.is_success else None
    return JobStatus(
        job_id=record.job_id,
        state=state,
        output_uri=output.uri,
        n_shards=sums.n_shards,
        n_shards_done=sums.n_shards_done,
        n_rows=sums.n_rows,
        n_pairs_done=sums.n_pairs_done,
        n_tokens=sums.n_tokens,
        n_rejected=sums.n_rejected,
        message=message,
        exit_code=_exit_code(state, failure),
        n_reused=sums.n_reused,
        no_reuse=record.no_reuse or sums.no_reuse,
        model_id=record.spec.model_id,
        submitted_at=record.submitted_at,
        started_at=sums.started_at,
        progress_at=sums.progress_at,
        ended_at=_ended_at(output, state, failure, manifest),
        scoring_s=None if scoring_s is None else round(scoring_s, 3),
        pairs_per_s=round(sums.n_pairs_done / scoring_s, 1) if scoring_s else None,
        reason=message,
    )


def _sums_of_manifest(output: Output, record: JobRecord, manifest: Manifest) -> _Sums | None:
    """Return the sums of a finished job; None if it has no times, as in release 0.1."""
    times = output.read_times()
    if times is None or not manifest.job_id == times.job_id == record.job_id:
        return None
    reuse = manifest.reuse
    return _Sums(
        n_shards=len(manifest.parts),
        n_shards_done=len(manifest.parts),
        n_rows=manifest.n_rows,
        n_pairs_done=manifest.n_rows,
        n_tokens=manifest.n_tokens,
        n_rejected=manifest.n_rejected,
        n_reused=reuse.n_reused if reuse else 0,
        no_reuse=(reuse.refused if reuse else None) or "",
        started_at=times.started_at,
        progress_at=times.ended_at,
        scoring_s=times.covered_s,
    )


def _sums_of_redis(output: Output, record: JobRecord, counts: JobCounts) -> _Sums | None:
    """Return the sums of an ended job; None if Redis has not counted the reports that exist."""
    may_lack_a_reason = record.spec.reuse_from is not None and not record.no_reuse
    if may_lack_a_reason or not counts.state.is_final or counts.job_id != record.job_id:
        return None
    if counts.n_shards_done != len(output.reported_shards()):
        return None
    return _Sums(
        n_shards=counts.n_shards,
        n_shards_done=counts.n_shards_done,
        n_rows=counts.n_rows,
        n_pairs_done=counts.n_pairs_done,
        n_tokens=counts.n_tokens,
        n_rejected=counts.n_rejected,
        n_reused=counts.n_reused,
        started_at=_time(counts.started_at),
        progress_at=_time(counts.progress_at),
    )


def _sums_of_reports(output: Output, record: JobRecord) -> _Sums:
    plan, reports = output.read_plan(), list(output.reports(record.job_id))
    ended = [(report.finished_at, report.wall_s) for report in reports if report.finished_at]
    scoring_s = None
    if len(ended) == len(reports):  # release 0.1 recorded no times
        ends = [(at.timestamp(), wall_s) for at, wall_s in ended]
        scoring_s = covered_s((end - wall_s, end) for end, wall_s in ends)
    return _Sums(
        n_shards=plan.n_shards if plan else 0,
        n_shards_done=len(reports),
        n_rows=plan.n_rows if plan else 0,
        n_pairs_done=sum(report.n_rows for report in reports),
        n_tokens=sum(report.n_tokens for report in reports),
        n_rejected=sum(report.n_rejected for report in reports),
        n_reused=sum(report.n_reused for report in reports),
        no_reuse=next((each.no_reuse for each in reports if each.no_reuse), ""),
        started_at=min((at - timedelta(seconds=wall_s) for at, wall_s in ended), default=None),
        progress_at=max((at for at, _ in ended), default=None),
        scoring_s=scoring_s,
    )


def status_from_redis(counts: JobCounts) -> JobStatus:
    """Return the status that the counts in Redis give, without rate, ETA and workers."""
    names = JobStatus.model_fields.keys() & vars(counts).keys()
    times = {
        "submitted_at": counts.submitted_at,
        "started_at": counts.started_at,
        "progress_at": counts.progress_at,
        "ended_at": counts.state_at if counts.state.is_final else None,
    }
    values = {name: getattr(counts, name) for name in names} | {
        name: _time(at) for name, at in times.items()
    }
    busy_share = round(counts.busy_ms / counts.worked_ms, 4) if counts.worked_ms else None
    return JobStatus(
        **values,
        exit_code=_exit_code(counts.state),
        reason=counts.message,
        busy_share=busy_share,
    )


def live_statuses(ledger: Ledger, job_ids: Sequence[str]) -> Iterator[JobStatus | EntryBroken]:
    """Yield the status of each job that Redis knows, with rate and ETA, or what is broken.

    It takes a few round trips for any number of jobs.
    """
    found = read_scan(ledger.redis, job_ids, lists=(), settle_s=-math.inf)
    live = {
        job_id: job.counts
        for job_id, job in found.jobs.items()
        if job.counts is not None
        and not job.counts.state.is_final
        and job.counts.state is not JobState.CANCELLING
    }
    n_takers = ledger.workers.n_takers({_queue(counts) for counts in live.values()})
    declines = ledger.declines.of_jobs(list(live), found.now) if live else {}
    for job_id, job in found.jobs.items():
        if job.broken:
            yield EntryBroken(job.broken)
        elif job_id in live:
            # A worker of an earlier release holds claims, but is not known by its queues.
            has_worker = n_takers[_queue(live[job_id])] > 0 or bool(job.claimed)
            yield _live_status(live[job_id], declines[job_id], has_worker=has_worker)
        elif job.counts is not None:
            yield status_from_redis(job.counts)


def _live_status(counts: JobCounts, declines: Sequence[Decline], *, has_worker: bool) -> JobStatus:
    """Return the status with rate and ETA; WAITING where no worker takes the job's queue."""
    status = status_from_redis(counts)
    n_pairs = counts.n_pairs_done - counts.n_pairs_before
    since, until = counts.started_at or 0.0, counts.progress_at or 0.0
    if 0 < since < until and n_pairs > 0:
        rate = n_pairs / (until - since)
        eta_s = round((counts.n_rows - counts.n_pairs_done) / rate)
        status = status.model_copy(update={"pairs_per_s": round(rate, 1), "eta_s": eta_s})
    if has_worker:
        reason = f"declined: {reasons_by_host(declines)}" if declines else status.reason
        return status.model_copy(update={"reason": reason})
    scores = status.state is JobState.RUNNING
    remedy = "start one with rankmill worker" + ("" if scores else " (--role all or control)")
    reason = f"no live worker takes {_queue(counts)}; {remedy}"
    return status.model_copy(update={"state": JobState.WAITING, "reason": reason})


def _queue(counts: JobCounts) -> str:
    """Return the queue in which a job's next work waits."""
    return score_queue(counts.model_id) if counts.state is JobState.RUNNING else CONTROL_QUEUE


def _ended_at(
    output: Output, state: JobState, failure: Failure | None, manifest: Manifest | None
) -> datetime | None:
    if state.is_success:
        return manifest.finished_at if manifest else None
    if state is JobState.CANCELLED:
        return output.cancelled_at()
    return failure.failed_at if failure and state is JobState.FAILED else None


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _exit_code(state: JobState, failure: Failure | None = None) -> int | None:
    if state.is_success:
        return 0
    if not state.is_final:
        return None
    return failure.exit_code if failure and state is JobState.FAILED else 1
