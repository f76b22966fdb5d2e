"""The end of a job: every row counted, then the manifest, then `_SUCCESS`, in that order."""

from __future__ import annotations

import logging
from collections import Counter
from datetime import UTC, datetime

from rankmill import dispatch, storage
from rankmill.errors import JobFailed, JobUnknown, RankmillError
from rankmill.ledger import Ledger
from rankmill.output import Job, Output, part_name
from rankmill.settings import Settings
from rankmill.spec import Manifest, PartSummary, ShardReport
from worker.queries import check_queries
from worker.trec import write_trec_run

log = logging.getLogger(__name__)

# Longer than reading the reports of a very large job takes; a finalize that died is then followed.
_TURN_S = 120.0


def finalize(ledger: Ledger, settings: Settings, job_id: str, output_uri: str) -> None:
    """Finish a job whose shards all have reports; again, twice at once or too early is harmless.

    Raises:
        TransientError: worth another try, by the caller.
    """
    output = Output(output_uri)
    try:
        job = output.load_job()
    except JobUnknown:
        return
    if job.job_id != job_id or not ledger.take_turn(f"finalize:{job_id}", _TURN_S):
        return
    try:
        if not output.has_ended():
            _complete(ledger, settings, job)
        if output.has_ended():
            ledger.end_job(job_id, output.state(), "", settings.keep_finished_s)
    except RankmillError as error:
        if error.transient:
            raise
        dispatch.fail(ledger, settings, job.record, error, None)
    finally:
        ledger.end_turn(f"finalize:{job_id}")


def _complete(ledger: Ledger, settings: Settings, job: Job) -> None:
    reports = list(job.output.reports(job.job_id))
    unfit = sorted(set(range(job.plan.n_shards)) - {report.shard_index for report in reports})
    unfit += [report.shard_index for report in reports if not _stands(job, report)]
    if unfit:  # a report or a part has gone since it was counted
        log.warning("job %s: shards %s are run again", job.job_id, unfit)
        for shard_index in unfit:
            job.output.forget_shard(shard_index)
        dispatch.start(ledger, settings, job)
        return
    manifest = make_manifest(job, reports)
    _check_counts(job, manifest)
    _check_models(manifest)
    check_queries(job)
    job.output.remove_strays(job.plan.n_shards)
    if job.spec.trec_run:
        write_trec_run(job)
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


def _check_models(manifest: Manifest) -> None:
    """A model that is changed during a job would give the rest of the scores."""
    found = {(each.weights_sha256, each.tokenizer_sha256) for each in manifest.scoring}
    if len(found) > 1:
        raise JobFailed(
            f"the model {manifest.spec.model_id} was changed during the job, so that its shards "
            "were scored with different weights; run it again with --overwrite"
        )


def _stands(job: Job, report: ShardReport) -> bool:
    """Whether a shard's files are there as its report says."""
    part = job.output.part_uri(report.shard_index)
    if not storage.exists(part) or storage.stat(part).size_bytes != report.part_bytes:
        return False
    return not report.n_rejected or storage.exists(job.output.rejected_uri(report.shard_index))
