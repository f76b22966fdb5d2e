"""A shard from rows to part: score, rank, publish, report, with every row accounted for."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rankmill import storage
from rankmill.output import Job
from rankmill.spec import RESULT_COLUMNS, Agreement, ShardReport, ShardSpec
from worker.models import LoadedModel
from worker.rank import activate, rank_groups
from worker.rejects import refusals, write_rejected
from worker.rows import owned_rows
from worker.score import Scored, ShardWork, Window, score_rows

_ROW_GROUP_ROWS = 64 * 1024

# A hundredth of the job, in these bounds, is also scored in fp32 to see what a reduced
# precision does to its ranks; more would cost time that the reduced precision was to save.
_MIN_CHECKED_PAIRS, _MAX_CHECKED_PAIRS = 20, 512


def run_shard(job: Job, shard: ShardSpec, work: ShardWork) -> ShardReport:
    """Score a shard and publish its part, then its report.

    Raises:
        InputError: the input changed, is damaged or is not clustered by query.
        ClaimLost: by `work.guard`; nothing was published after that.
    """
    started = time.monotonic()
    busy = work.model.scorer.stats.device_busy_s
    scored = score_rows(job, shard, work)
    agreement = _agreement(job, shard, work) if shard.shard_index == 0 else None
    part = _ranked(job, scored, work.model)
    work.guard()
    rejected = write_rejected(job, shard.shard_index, scored.rejected)
    work.guard()
    published = storage.publish(
        job.output.part_uri(shard.shard_index), lambda file: _write_parquet(part, file)
    )
    report = ShardReport(
        job_id=job.job_id,
        shard_index=shard.shard_index,
        n_rows=scored.n_rows,
        n_scored=scored.n_rows - len(scored.rejected),
        n_rejected=len(scored.rejected),
        n_written=part.num_rows,
        n_query_groups=scored.n_groups,
        n_tokens=scored.n_tokens,
        n_truncated=sum(int(np.sum(table["truncated"])) for table in scored.tables),
        rejects_by_reason=dict(sorted(Counter(scored.rejected.values()).items())),
        part_bytes=published.n_bytes,
        part_sha256=published.sha256,
        rejected_sha256=rejected.sha256 if rejected else None,
        wall_s=time.monotonic() - started,
        device_busy_s=work.model.scorer.stats.device_busy_s - busy,
        worker=work.worker,
        scoring=work.model.scoring,
        agreement=agreement,
    )
    work.guard()
    job.output.write_report(report)
    return report


def _agreement(job: Job, shard: ShardSpec, work: ShardWork) -> Agreement | None:
    """How the precision ranks the job's first pairs compared with fp32; None in fp32 itself."""
    precision = work.model.scoring.precision
    if precision == "fp32" or work.suspects is not None:
        return None
    columns = job.plan.columns
    n_pairs = min(max(job.plan.n_rows // 100, _MIN_CHECKED_PAIRS), _MAX_CHECKED_PAIRS)
    first = next(owned_rows(job, shard, [columns.query, columns.document], n_pairs), None)
    if first is None:
        return None
    pairs = Window.of(first, refusals(first.table, columns)).pairs(columns)
    return Agreement(precision=precision, **asdict(work.model.scorer.agreement(pairs)))


def _ranked(job: Job, scored: Scored, model: LoadedModel) -> pa.Table:
    schema = part_schema(job)
    if not scored.tables:
        return schema.empty_table()
    table = pa.concat_tables(scored.tables)
    logits = table["logit"].to_numpy()
    order, ranks = rank_groups(np.concatenate(scored.groups), logits, job.spec.top_k)
    table = table.take(order)
    scores = activate(logits[order], model.scoring.activation)
    table = table.append_column("score", pa.array(scores, pa.float32()))
    table = table.append_column("rank", pa.array(ranks, pa.int32()))
    return table.select(schema.names).cast(schema)


def part_schema(job: Job) -> pa.Schema:
    """The columns of every part of a job, whatever the values in it."""
    read = job.plan.schema
    kept = [
        pa.field(name, read.field(column).type) for column, name in job.plan.columns.kept.items()
    ]
    types = (pa.float32(), pa.float32(), pa.int32(), pa.int32(), pa.bool_())
    results = [pa.field(name, kind) for name, kind in zip(RESULT_COLUMNS, types, strict=True)]
    return pa.schema([*kept, *results])


def _write_parquet(table: pa.Table, file: IO[bytes]) -> None:
    pq.write_table(table, file, compression="zstd", row_group_size=_ROW_GROUP_ROWS)
