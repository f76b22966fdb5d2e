"""Finalize a job: check its counts, then write manifest, report page and at last `_SUCCESS`."""

from __future__ import annotations

import shlex
from collections import Counter
from datetime import UTC, datetime
from itertools import chain

from rankmill import storage
from rankmill.broker import send_report
from rankmill.contract.results import Manifest, PartSummary, Reuse, ShardReport
from rankmill.contract.reuse import remarks as known_remarks
from rankmill.contract.times import scoring_times
from rankmill.dispatch import Dispatcher
from rankmill.errors import JobFailed, JobUnknown
from rankmill.guard import attempt
from rankmill.ledger.claims import FINALIZATION, Claim
from rankmill.logs import get_logger
from rankmill.output import cleanup, ending
from rankmill.output.output import Job, Output
from rankmill.output.uris import part_name
from rankmill.report import try_report
from worker.shard.group_checks import check_queries
from worker.trec import write_trec_run

log = get_logger(__name__)


def finalize(dispatcher: Dispatcher, job_id: str, output_uri: str) -> None:
    """Finish a job whose shards all have reports; idempotent, and harmless if too early.

    Raises:
        TransientError: a retry may help.
        Declined: this host cannot do it.
    """
    ledger, output = dispatcher.ledger, Output(output_uri)
    with attempt(dispatcher, job_id, output_uri) as tried:
        record = output.read_job()
        ledger.check_in_place(job_id, record)
        if record is None:
            raise output.unseen(job_id)
        try:
            job = output.load_job()
        except JobUnknown:
            return
        if job.job_id != job_id:
            return
        claim = Claim.take(ledger.claims, job_id, FINALIZATION, dispatcher.settings.claim_s)
        if claim is None:
            return
        tried.record = job.record
        with claim:
            counts = dispatcher.last_counts(job_id)
            if counts is not None and counts.state.is_final:  # its output may be going right now
                return
            if not job.output.has_ended() and not ending.finish(job.output):
                _complete(dispatcher, job, claim)
            if job.output.has_ended():
                log.info("job ended", state=job.output.state())
                dispatcher.end(job.output, job_id)


def _complete(dispatcher: Dispatcher, job: Job, claim: Claim) -> None:
    """Write the manifest and mark the success, or send shards again whose files have gone."""
    reports = list(job.output.reports(job.job_id))
    unfit = sorted(set(range(job.plan.n_shards)) - {report.shard_index for report in reports})
    unfit += [report.shard_index for report in reports if not _has_files(job, report)]
    if unfit:  # a report or a part has gone since it was counted
        log.warning("shards sent again: files missing", shards=unfit)
        for shard_index in unfit:
            job.output.forget_shard(shard_index)
        dispatcher.start(job)
        return
    claim.check()
    with_rejects = [report.shard_index for report in reports if report.n_rejected]
    cleanup.remove_strays(job.output, job.plan.n_shards, with_rejects)
    manifest = make_manifest(job, reports)
    check_manifest(job, manifest)
    check_queries(job)
    claim.check()
    if job.spec.trec_run:
        write_trec_run(job)
    times = scoring_times(job.job_id, reports)
    if times is not None:
        job.output.write_times(times)
    job.output.write_manifest(manifest)
    try_report(job.output, job.job_id, reports, manifest)
    claim.check()
    if not job.output.mark_success():
        cleanup.forget_summary(job.output)
        send_report(job.job_id, job.output.uri)  # the page says that it succeeded


def make_manifest(job: Job, reports: list[ShardReport]) -> Manifest:
    """Return the sum of a job's shard reports."""
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
        no_agreement=next((each.no_agreement for each in reports if each.no_agreement), None),
        parts=tuple(
            PartSummary(
                name=part_name(report.shard_index),
                n_rows=report.n_written,
                n_bytes=report.part_bytes,
                sha256=report.part_sha256,
            )
            for report in reports
        ),
        reuse=_reuse(job, reports),
        title_col=job.plan.columns.title or job.plan.columns.corpus_title,
    )


def _reuse(job: Job, reports: list[ShardReport]) -> Reuse | None:
    """Return the scores that a job reused from an earlier one; None if it was not to reuse any."""
    if job.spec.reuse_from is None:
        return None
    known = None if job.record.no_reuse else job.output.read_known()
    reasons = [job.record.no_reuse, *(report.no_reuse for report in reports)]
    n_reused = sum(report.n_reused for report in reports)
    remarks = (known_remarks(known.scoring, each.scoring) for each in reports) if known else ()
    return Reuse(
        source_uri=known.source_uri if known else job.spec.reuse_from,
        source_job_id=known.source_job_id if known else None,
        n_reused=n_reused,
        n_new=sum(report.n_scored for report in reports) - n_reused,
        refused="; ".join(dict.fromkeys(filter(None, reasons))) or None,
        remarks=tuple(dict.fromkeys(chain.from_iterable(remarks))) if n_reused else (),
    )


def check_manifest(job: Job, manifest: Manifest) -> None:
    """Check that all rows are accounted for, rejects are few enough and one model scored them.

    Raises:
        JobFailed: one of these is not so.
    """
    accounted = manifest.n_scored + manifest.n_rejected
    if not job.plan.n_rows == manifest.n_rows == accounted:
        raise JobFailed(
            f"{job.plan.n_rows} input rows, but {manifest.n_scored} scored and "
            f"{manifest.n_rejected} rejected; nothing was marked as done"
        )
    allowed = job.spec.max_reject_rate
    if manifest.n_rejected > allowed * manifest.n_rows:
        reasons = ", ".join(f"{why}: {n}" for why, n in manifest.rejects_by_reason.items())
        percent = 100 * manifest.n_rejected // manifest.n_rows
        while manifest.n_rejected > percent / 100 * manifest.n_rows:
            percent += 1
        raise JobFailed(
            f"{manifest.n_rejected} of {manifest.n_rows} rows were rejected, more than "
            f"--max-reject-rate {allowed:g} allows ({reasons}); "
            f"see {job.output.control_uri}/rejected; accept them with: rankmill resume "
            f"{shlex.quote(job.output.uri)} --max-reject-rate {percent / 100:g}"
        )
    weights = {(each.weights_sha256, each.tokenizer_sha256) for each in manifest.scoring}
    if len(weights) > 1:
        raise JobFailed(
            f"the model {manifest.spec.model_id} was changed during the job, so that its shards "
            "were scored with different weights; run it again with --overwrite"
        )


def _has_files(job: Job, report: ShardReport) -> bool:
    """Return whether a shard's part and other files exist as its report says."""
    part = job.output.part_uri(report.shard_index)
    if not storage.exists(part) or storage.stat(part).size_bytes != report.part_bytes:
        return False
    others = [job.output.rejected_uri(report.shard_index)] if report.n_rejected else []
    others += [job.output.shard_scores_uri(report.shard_index)] if job.spec.for_reuse else []
    return all(map(storage.exists, others))
