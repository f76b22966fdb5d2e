"""A shard from rows to part: read, score, rank, write, with every row accounted for."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rankmill import storage
from rankmill.output import Job
from rankmill.spec import RESULT_COLUMNS, Columns, ShardReport, ShardSpec
from worker.engine.scorer import PairWindow, WindowScores
from worker.models import LoadedModel
from worker.rank import activate, rank_groups
from worker.rejects import NOT_FINITE, refusals, write_rejected
from worker.rows import OwnedRows, owned_rows
from worker.suspects import KILLS, Suspects

_ROW_GROUP_ROWS = 64 * 1024

# Told after each window: pairs and tokens of the shard scored so far.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ShardWork:
    """What running a shard needs beside the shard itself.

    Attributes:
        progress: told after each window.
        guard: called before anything is published; raises where the claim is lost.
        suspects: set for a shard that has killed workers, which is then scored with care.
    """

    model: LoadedModel
    worker: str
    window_pairs: int
    progress: Progress
    guard: Callable[[], None]
    suspects: Suspects | None = None


@dataclass
class _Tally:
    """What has been scored of a shard so far; the rows' kept columns stay until they are ranked."""

    tables: list[pa.Table] = field(default_factory=list)
    groups: list[np.ndarray] = field(default_factory=list)
    rejected: dict[int, str] = field(default_factory=dict)
    n_rows: int = 0
    n_tokens: int = 0
    n_groups: int = 0


def run_shard(job: Job, shard: ShardSpec, work: ShardWork) -> ShardReport:
    """Score a shard and publish its part, then its report.

    Raises:
        InputError: the input changed, is damaged or is not clustered by query.
        ClaimLost: by `work.guard`; nothing was published after that.
    """
    started = time.monotonic()
    busy = work.model.scorer.stats.device_busy_s
    tally = _score(job, shard, work)
    part = _ranked(job, tally, work.model)
    work.guard()
    rejected = write_rejected(job, shard.shard_index, tally.rejected)
    work.guard()
    published = storage.publish(
        job.output.part_uri(shard.shard_index), lambda file: _write_parquet(part, file)
    )
    report = ShardReport(
        job_id=job.job_id,
        shard_index=shard.shard_index,
        n_rows=tally.n_rows,
        n_scored=tally.n_rows - len(tally.rejected),
        n_rejected=len(tally.rejected),
        n_written=part.num_rows,
        n_query_groups=tally.n_groups,
        n_tokens=tally.n_tokens,
        n_truncated=sum(int(np.sum(table["truncated"])) for table in tally.tables),
        rejects_by_reason=dict(sorted(Counter(tally.rejected.values()).items())),
        part_bytes=published.n_bytes,
        part_sha256=published.sha256,
        rejected_sha256=rejected.sha256 if rejected else None,
        wall_s=time.monotonic() - started,
        device_busy_s=work.model.scorer.stats.device_busy_s - busy,
        worker=work.worker,
        scoring=work.model.scoring,
    )
    work.guard()
    job.output.write_report(report)
    return report


def _score(job: Job, shard: ShardSpec, work: ShardWork) -> _Tally:
    """Stream the shard's rows through the scorer, which reads ahead; keep what a part needs."""
    columns = job.plan.columns
    waiting: deque[tuple[OwnedRows, np.ndarray]] = deque()
    tally = _Tally()

    def windows() -> Iterator[PairWindow]:
        for rows in _windows_of_rows(job, shard, work):
            refused = refusals(rows.table, columns)
            if work.suspects and work.suspects.kills(rows.first_row):
                refused.setdefault(0, KILLS)
            tally.rejected.update({rows.first_row + at: why for at, why in refused.items()})
            good = np.delete(np.arange(rows.table.num_rows), list(refused))
            waiting.append((rows, good))
            texts = rows.table.take(good)
            yield PairWindow(texts[columns.query].to_pylist(), texts[columns.document].to_pylist())

    scorer = work.model.scorer
    scored = _one_by_one(work, windows(), waiting) if work.suspects else scorer.score(windows())
    for scores in scored:
        rows, good = waiting.popleft()
        _keep(tally, rows, good, scores, columns)
        work.progress(tally.n_rows, tally.n_tokens)
    return tally


def _windows_of_rows(job: Job, shard: ShardSpec, work: ShardWork) -> Iterator[OwnedRows]:
    columns = job.plan.columns
    reading = [columns.query, columns.document, *columns.kept]
    for rows in owned_rows(job.plan, shard, reading, work.window_pairs):
        if work.suspects is None:
            yield rows
        else:
            for first, stop in work.suspects.pieces(rows.first_row, rows.stop_row):
                yield rows.between(first, stop)


def _one_by_one(
    work: ShardWork,
    windows: Iterator[PairWindow],
    waiting: deque[tuple[OwnedRows, np.ndarray]],
) -> Iterator[WindowScores]:
    """Score window after window, nothing ahead, each on trial while it is with the model."""
    assert work.suspects is not None
    for window in windows:
        rows = waiting[-1][0]
        with work.suspects.on_trial(rows.first_row, rows.stop_row):
            yield from work.model.scorer.score([window])


def _keep(
    tally: _Tally, rows: OwnedRows, good: np.ndarray, scores: WindowScores, columns: Columns
) -> None:
    finite = np.isfinite(scores.logits)
    for at in good[~finite].tolist():
        tally.rejected[rows.first_row + at] = NOT_FINITE
    kept = rows.table.select(list(columns.kept)).take(good[finite])
    results = {
        "logit": scores.logits[finite],
        "n_tokens": scores.n_tokens[finite],
        "truncated": scores.truncated[finite],
    }
    kept = kept.rename_columns(list(columns.kept.values()))
    for name, values in results.items():
        kept = kept.append_column(name, pa.array(values))
    tally.tables.append(kept)
    tally.groups.append(rows.groups[good[finite]])
    tally.n_rows += rows.table.num_rows
    tally.n_tokens += int(scores.n_tokens.sum())
    tally.n_groups = int(rows.groups[-1]) + 1


def _ranked(job: Job, tally: _Tally, model: LoadedModel) -> pa.Table:
    schema = part_schema(job)
    if not tally.tables:
        return schema.empty_table()
    table = pa.concat_tables(tally.tables)
    logits = table["logit"].to_numpy()
    order, ranks = rank_groups(np.concatenate(tally.groups), logits, job.spec.top_k)
    table = table.take(order)
    scores = activate(logits[order], model.scoring.activation)
    table = table.append_column("score", pa.array(scores, pa.float32()))
    table = table.append_column("rank", pa.array(ranks, pa.int32()))
    return table.select(schema.names).cast(schema)


def part_schema(job: Job) -> pa.Schema:
    """The columns of every part of a job, whatever the values in it."""
    first = storage.local_path(job.plan.files[0].uri)
    read = pq.read_schema(first)
    kept = [
        pa.field(name, read.field(column).type) for column, name in job.plan.columns.kept.items()
    ]
    types = (pa.float32(), pa.float32(), pa.int32(), pa.int32(), pa.bool_())
    results = [pa.field(name, kind) for name, kind in zip(RESULT_COLUMNS, types, strict=True)]
    return pa.schema([*kept, *results])


def _write_parquet(table: pa.Table, file: IO[bytes]) -> None:
    pq.write_table(table, file, compression="zstd", row_group_size=_ROW_GROUP_ROWS)
