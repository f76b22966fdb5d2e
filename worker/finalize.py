"""The end of a job: every row counted, then the manifest, then `_SUCCESS`, in that order."""

from __future__ import annotations

import logging
from collections import Counter
from datetime import UTC, datetime

from rankmill import dispatch, storage
from rankmill.errors import JobFailed, JobUnknown
from rankmill.ledger import Ledger
from rankmill.lifecycle import JobState
from rankmill.output import Job, Output, part_name
from rankmill.settings import Settings
from rankmill.spec import Manifest, PartSummary, ShardReport

log = logging.getLogger(__name__)


def finalize(ledger: Ledger, settings: Settings, job_id: str, output_uri: str) -> None:
    """Finish a job whose shards all have reports; again or too early is harmless."""
    output = Output(output_uri)
    try:
        job = output.load_job()
    except JobUnknown:
        return
    if job.job_id != job_id:
        return
    state = output.state()
    if state is JobState.RUNNING:  # a report has gone since it was counted
        dispatch.start(ledger, settings, job)
        return
    if not state.is_final:
        try:
            _complete(job)
        except JobFailed as error:
            dispatch.fail(ledger, settings, job, str(error), None)
            return
    ledger.end_job(job_id, output.state(), "", settings.keep_finished_s)


def _complete(job: Job) -> None:
    reports = list(job.output.reports())
    manifest = make_manifest(job, reports)
    _check_counts(job, manifest)
    _check_parts(job, reports)
    job.output.remove_temporaries()
    job.output.write_manifest(manifest)
    job.output.mark_success()


def make_manifest(job: Job, reports: list[ShardReport]) -> Manifest:
    """The sum of a job's shard reports."""
    by_reason: Counter[str] = Counter()
    for report in reports:
        by_reason.update(report.rejects_by_reason)
    return Manifest(
        job_id=job.job_id,
        spec=job.spec,
        submitted_at=job.record.submitted_at,
        finished_at=datetime.now(UTC),
        n_rows=sum(report.n_rows for report in reports),
        n_scored=sum(report.n_scored for report in reports),
        n_rejected=sum(report.n_rejected for report in reports),
        n_written=sum(report.n_written for report in reports),
        n_query_groups=sum(report.n_query_groups for report in reports),
        n_tokens=sum(report.n_tokens for report in reports),
        n_truncated=sum(report.n_truncated for report in reports),
        rejects_by_reason=dict(sorted(by_reason.items())),
        scoring_s=sum(report.wall_s for report in reports),
        device_busy_s=sum(report.device_busy_s for report in reports),
        workers=tuple(sorted({report.worker for report in reports})),
        scoring=tuple(
            {report.scoring.model_dump_json(): report.scoring for report in reports}.values()
        ),
        agreement=next((report.agreement for report in reports if report.agreement), None),
        parts=tuple(
            PartSummary(
                name=part_name(report.shard_index),
                n_rows=report.n_written,
                n_bytes=report.part_bytes,
                sha256=report.part_sha256,
            )
            for report in reports
        ),
    )


def _check_counts(job: Job, manifest: Manifest) -> None:
    """Guarantee 1: rows in = rows scored + rows rejected, or the job does not succeed."""
    accounted = manifest.n_scored + manifest.n_rejected
    if not job.plan.n_rows == manifest.n_rows == accounted:
        raise JobFailed(
            f"{job.plan.n_rows} input rows, but {manifest.n_scored} scored and "
            f"{manifest.n_rejected} rejected; nothing was marked as done"
        )
    allowed = job.spec.max_reject_rate
    if manifest.n_rejected > allowed * manifest.n_rows:
        reasons = ", ".join(f"{why}: {n}" for why, n in manifest.rejects_by_reason.items())
        raise JobFailed(
            f"{manifest.n_rejected} of {manifest.n_rows} rows were rejected, more than "
            f"--max-reject-rate {allowed:g} allows ({reasons}); see _rankmill/rejected"
        )


def _check_parts(job: Job, reports: list[ShardReport]) -> None:
    for report in reports:
        uri = job.output.part_uri(report.shard_index)
        if not storage.exists(uri) or storage.stat(uri).size_bytes != report.part_bytes:
            raise JobFailed(f"{uri} is missing or not as its shard report says")
