"""Run a shard: score its rows, publish its part, and commit both with the shard report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Container
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime

import numpy as np

from rankmill import storage
from rankmill.contract.histogram import length_histogram, score_histogram
from rankmill.contract.plan import ShardSpec
from rankmill.contract.results import Agreement, ShardReport
from rankmill.contract.reuse import known_type
from rankmill.errors import JobFailed
from rankmill.output.output import Job
from worker.device_errors import device_errors
from worker.engine.device.faults import DeviceFullError
from worker.models import release
from worker.shard.part import activate, write_part
from worker.shard.reader import owned_rows
from worker.shard.rejects import write_rejected
from worker.shard.reordering import RankedRows, summarize
from worker.shard.reuse import write_scores
from worker.shard.score import Scored, ShardWork, Window, score_rows

# A hundredth of the job, in these bounds, is also scored in fp32 to see what a reduced
# precision does to its ranks; more would cost time that the reduced precision was to save.
_MIN_CHECKED_PAIRS, _MAX_CHECKED_PAIRS = 20, 512


def run_shard(job: Job, shard: ShardSpec, work: ShardWork) -> ShardReport:
    """Score a shard and publish its part, then its report.

    Raises:
        InputError: the input changed, is damaged, is not clustered by query or names a document
            twice.
        DeviceFault, DeviceFull, MemoryShort: no report was published, and no row is to blame.
        JobFailed: the model's files were written to.
        ClaimLost: by `work.guard`; nothing was published after that.
    """
    started = time.monotonic()
    scoring, index = work.model.scoring, shard.shard_index
    busy_before_s = work.model.scorer.stats.device_busy_s
    with ExitStack() as stack:
        with device_errors():
            scored = score_rows(job, shard, work, stack)
        _check_weights(work)
        work.guard()
        with ThreadPoolExecutor(1, "publishing") as pool:
            others = pool.submit(_write_others, job, index, scored)
            part, n_written = write_part(job, index, scored, scoring.activation)
            rejected = others.result()
        # After the part, since fp32 may take longer than the shard.
        with device_errors():
            agreement, no_agreement = _agreement(job, shard, work, scored.rejected)
    ranked = _ranked(scored, scoring.activation)
    report = ShardReport(
        job_id=job.job_id,
        shard_index=index,
        n_rows=scored.n_rows,
        n_scored=scored.n_rows - len(scored.rejected),
        n_rejected=len(scored.rejected),
        n_written=n_written,
        n_query_groups=scored.n_groups,
        n_tokens=scored.n_tokens,
        n_truncated=scored.n_truncated,
        rejects_by_reason=dict(sorted(Counter(scored.rejected.values()).items())),
        part_bytes=part.n_bytes,
        part_sha256=part.sha256,
        rejected_sha256=rejected.sha256 if rejected else None,
        wall_s=time.monotonic() - started,
        device_busy_s=work.model.scorer.stats.device_busy_s - busy_before_s,
        worker=work.worker,
        scoring=scoring,
        agreement=agreement,
        no_agreement=no_agreement,
        finished_at=datetime.now(UTC),
        n_duplicates=scored.n_duplicates,
        n_deaths=work.n_deaths,
        n_retries=work.n_retries,
        scores=score_histogram(ranked.scores, scoring.activation),
        lengths=length_histogram(ranked.lengths, scoring.max_length),
        logits=score_histogram(ranked.logits, "none"),
        reordering=summarize(ranked),
        n_reused=scored.n_reused,
        no_reuse=scored.no_reuse,
    )
    work.guard()
    return job.output.commit(report)


def _ranked(scored: Scored, activation: str) -> RankedRows:
    """Return the scored rows of a shard as arrays, which may be empty."""

    def joined(pieces: list[np.ndarray], kind: type[np.generic]) -> np.ndarray:
        return np.concatenate([np.empty(0, kind), *pieces], dtype=kind)

    logits = joined(scored.logits, np.float32)
    return RankedRows(
        groups=joined(scored.groups, np.int64),
        rows=joined(scored.rows, np.int64),
        logits=logits,
        scores=activate(logits, activation),
        lengths=joined(scored.lengths, np.int64),
        truncated=joined(scored.truncated, np.bool_),
        first_scores=joined(scored.first_scores, np.float64) if scored.first_scores else None,
    )


def _write_others(job: Job, shard_index: int, scored: Scored) -> storage.Published | None:
    """Publish all files of a shard but its part and its report, and return its rejects."""
    rejected = write_rejected(job, shard_index, scored.rejected)
    scored.checks.write_digests(shard_index)
    if scored.hashed is not None:
        write_scores(job, shard_index, scored.hashed)
    return rejected


def _check_weights(work: ShardWork) -> None:
    """Refuse scores of weights that changed in memory, since they are mapped from their files."""
    if work.model.scorer.have_weights_changed():
        model_id = work.model.scoring.model_id
        release()
        raise JobFailed(
            f"the files of the model {model_id} were written to while it was in use; replace files "
            "by renaming new ones, and run the job again with --overwrite"
        )


def _agreement(
    job: Job, shard: ShardSpec, work: ShardWork, rejected: Container[int]
) -> tuple[Agreement | None, str | None]:
    """Compare how the precision ranks the job's first pairs with fp32.

    Returns:
        The agreement, or else why it could not be measured. Both are None for fp32 itself, for any
        shard but the first, and for one that is run with care.
    """
    precision = work.model.scoring.precision
    if shard.shard_index != 0 or precision == "fp32" or work.suspects is not None:
        return None, None
    columns = job.plan.columns
    n_pairs = min(max(job.plan.n_rows // 100, _MIN_CHECKED_PAIRS), _MAX_CHECKED_PAIRS)
    first = next(owned_rows(job, shard, columns.texts, n_pairs), None)
    if first is None:
        return None, None
    unknown = np.zeros(first.table.num_rows, known_type(has_passages=job.spec.has_passages))
    unfit = [at for at in range(len(first.groups)) if first.first_row + at in rejected]
    pairs = Window.of(first, unfit, unknown).pairs(columns)
    try:
        return Agreement(precision=precision, **asdict(work.model.scorer.agreement(pairs))), None
    except DeviceFullError as error:
        return None, f"not measured: {error}"
