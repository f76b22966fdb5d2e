"""A part: the kept columns and the results of a shard, best first within each query."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rankmill import storage
from rankmill.output import Job
from rankmill.spec import RESULT_COLUMNS
from worker.rank import activate, rank_groups
from worker.score import Scored

_ROW_GROUP_ROWS = 64 * 1024
_RESULT_TYPES = (pa.float32(), pa.float32(), pa.int32(), pa.int32(), pa.bool_())


@dataclass(frozen=True)
class Part:
    """A part that stands."""

    n_rows: int
    published: storage.Published


def write_part(job: Job, shard_index: int, scored: Scored, activation: str) -> Part:
    """Rank a shard's rows and publish them, a row group in memory at a time."""
    schema = part_schema(job)
    n_rows = 0

    def write(file: IO[bytes]) -> None:
        nonlocal n_rows
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for table in _ranked(job, scored, activation):
                writer.write_table(table.select(schema.names).cast(schema))
                n_rows += table.num_rows

    published = storage.publish(job.output.part_uri(shard_index), write)
    return Part(n_rows, published)


def part_schema(job: Job) -> pa.Schema:
    """The columns of every part of a job, whatever the values in it."""
    kept = [
        pa.field(name, job.plan.schema.field(column).type)
        for column, name in job.plan.columns.kept.items()
    ]
    types = zip(RESULT_COLUMNS, _RESULT_TYPES, strict=True)
    return pa.schema([*kept, *(pa.field(name, kind) for name, kind in types)])


def _ranked(job: Job, scored: Scored, activation: str) -> Iterator[pa.Table]:
    rows = scored.kept.table()
    if rows is None:
        return
    logits = np.concatenate(scored.logits)
    order, ranks = rank_groups(np.concatenate(scored.groups), logits, job.spec.top_k)
    for start in range(0, len(order), _ROW_GROUP_ROWS):
        at = order[start : start + _ROW_GROUP_ROWS]
        table = rows.take(pa.array(at))
        scores = activate(logits[at], activation)
        table = table.append_column("score", pa.array(scores, pa.float32()))
        yield table.append_column("rank", pa.array(ranks[start : start + len(at)], pa.int32()))
