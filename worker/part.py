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
from rankmill.spec import CANDIDATES_COLUMN, RESULT_COLUMNS
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
    """Rank a shard's rows and publish them, a row group (or a list) in memory at a time."""
    schema = part_schema(job)
    fold = job.plan.columns.candidates is not None
    n_rows = 0

    def write(file: IO[bytes]) -> None:
        nonlocal n_rows
        options = {"compression": "zstd", "use_dictionary": _dictionary_columns(schema)}
        with pq.ParquetWriter(file, schema, **options) as writer:
            for table, groups in _ranked(job, scored, activation):
                rows = _folded(table, groups, schema) if fold else table.select(schema.names)
                writer.write_table(rows.cast(schema))
                n_rows += rows.num_rows

    published = storage.publish(job.output.part_uri(shard_index), write)
    return Part(n_rows, published)


def _dictionary_columns(schema: pa.Schema) -> list[str]:
    """The physical columns that a dictionary may shorten; floats, as scores are, mostly differ."""
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    stored = pq.read_metadata(pa.BufferReader(sink.getvalue())).schema
    leaves = map(stored.column, range(len(stored)))
    return [leaf.path for leaf in leaves if leaf.physical_type not in ("FLOAT", "DOUBLE")]


def part_schema(job: Job) -> pa.Schema:
    """The columns of every part of a job, whatever the values in it."""
    columns = job.plan.columns
    kept = {
        column: pa.field(name, job.plan.schema.field(column).type)
        for column, name in columns.kept.items()
    }
    types = zip(RESULT_COLUMNS, _RESULT_TYPES, strict=True)
    results = [pa.field(name, kind) for name, kind in types]
    if columns.candidates is None:
        return pa.schema([*kept.values(), *results])
    of_query = [field for column, field in kept.items() if column not in columns.candidates]
    of_candidate = [field for column, field in kept.items() if column in columns.candidates]
    candidates = pa.list_(pa.struct([*of_candidate, *results]))
    return pa.schema([*of_query, pa.field(CANDIDATES_COLUMN, candidates)])


def _ranked(job: Job, scored: Scored, activation: str) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """Rows best first within each query, with their groups; whole groups where they are folded."""
    rows = scored.kept.close()
    if rows is None:
        return
    logits, groups = np.concatenate(scored.logits), np.concatenate(scored.groups)
    order, ranks = rank_groups(groups, logits, job.spec.top_k)
    groups = groups[order]
    is_folded = job.plan.columns.candidates is not None
    start = 0
    while start < len(order):
        stop = min(start + _ROW_GROUP_ROWS, len(order))
        if is_folded:
            stop = int(np.searchsorted(groups, groups[stop - 1], side="right"))
        at = order[start:stop]
        table = rows.take(at)
        scores = activate(logits[at], activation)
        table = table.append_column("score", pa.array(scores, pa.float32()))
        table = table.append_column("rank", pa.array(ranks[start:stop], pa.int32()))
        yield table, groups[start:stop]
        start = stop


def _folded(table: pa.Table, groups: np.ndarray, schema: pa.Schema) -> pa.Table:
    """A row for each query with the list of its candidates."""
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    fields = list(schema.field(CANDIDATES_COLUMN).type.value_type)
    columns = [table[field.name].cast(field.type).combine_chunks() for field in fields]
    candidates = pa.ListArray.from_arrays(
        pa.array(np.append(starts, len(groups)), pa.int32()),
        pa.StructArray.from_arrays(columns, fields=fields),
    )
    queries = table.select(schema.names[:-1]).take(pa.array(starts))
    return queries.append_column(CANDIDATES_COLUMN, candidates)
