"""The plan of a job: its rows cut into shards of about the same number of bytes."""

from __future__ import annotations

import numpy as np

from producer.inputs.columns import resolve_columns
from producer.inputs.source import Source
from rankmill.contract.job import JobSpec
from rankmill.contract.plan import MAX_SHARDS, Columns, Plan, encode_schema
from rankmill.errors import InputError
from rankmill.tables.schema import with_id_types

_N_SHARDS = 32
_MIN_SHARD_PAIRS, MAX_SHARD_PAIRS = 1024, 32768
_MAX_SHARD_BYTES = 128 * 2**20

# What a row costs besides its columns, in bytes: its special tokens and its results.
_ROW_BYTES = 64
# A cut moves to the edge of a row group that is at most this part of a shard away. A shard that
# begins within a row group decodes the rows before it for nothing.
_NEAR = 0.25


def make_plan(job_id: str, spec: JobSpec, source: Source, columns: Columns | None = None) -> Plan:
    """Cut pairs that are clustered by query into shards.

    Args:
        job_id: the job's id.
        spec: the job.
        source: its files and their footers.
        columns: the columns of a prepared dataset; without them `resolve_columns` finds them.

    Raises:
        InputError: as `resolve_columns` and `shard_bounds`.
    """
    columns = columns or resolve_columns(spec, source.schema)
    schema = with_id_types(source.schema, (columns.query_id, columns.doc_id))
    return Plan(
        job_id=job_id,
        files=source.files,
        arrow_schema=encode_schema(schema),
        columns=columns,
        shard_bounds=shard_bounds(source.group_rows, source.group_bytes, spec.shard_pairs),
    )


def shard_bounds(
    group_rows: np.ndarray, group_bytes: np.ndarray, shard_pairs: int | None
) -> tuple[int, ...]:
    """Return the row at which each shard begins, and the end; an empty input has one empty shard.

    Without `shard_pairs` there are about 32 shards. None is below 1,024 pairs, whose overhead would
    show. None is above 32,768 pairs or 128 MB of columns, which a lost worker would lose. The
    result depends on the footers alone.

    Args:
        group_rows: int64 (n,), rows of each row group of all files.
        group_bytes: int64 (n,), bytes of the columns that are read, of each row group.
        shard_pairs: rows of a shard on average, or None.

    Raises:
        InputError: the rows are so many that the plan itself would be too large.
    """
    n_rows, n_bytes = sum(group_rows.tolist()), sum(group_bytes.tolist())  # beyond 64 bits too
    if shard_pairs is not None:
        n_shards = max(1, -(-n_rows // shard_pairs))
    else:
        size = min(max(-(-n_rows // _N_SHARDS), _MIN_SHARD_PAIRS), MAX_SHARD_PAIRS)
        by_bytes = min(-(-n_bytes // _MAX_SHARD_BYTES), n_rows)
        n_shards = max(1, -(-n_rows // size), by_bytes)
    if n_shards > MAX_SHARDS:
        raise InputError(
            f"the input's footers name {n_rows:,} rows of {n_bytes:,} bytes, which makes "
            f"{n_shards:,} shards, more than {MAX_SHARDS:,}; if that is so, give a larger "
            "--shard-pairs or several jobs"
        )
    if n_shards == 1:
        return (0, n_rows)
    edges = np.concatenate([[0], np.cumsum(group_rows)])
    costs = np.concatenate([[0], np.cumsum(group_bytes + _ROW_BYTES * group_rows)])
    shard_cost = costs[-1] / n_shards
    wanted = shard_cost * np.arange(1, n_shards)
    cuts = np.rint(np.interp(wanted, costs, edges)).astype(np.int64)
    after = np.searchsorted(costs, wanted).clip(1, len(costs) - 1)
    nearest = np.where(wanted - costs[after - 1] < costs[after] - wanted, after - 1, after)
    is_near = np.abs(costs[nearest] - wanted) <= _NEAR * shard_cost
    cuts = np.where(is_near, edges[nearest], cuts)
    return tuple(np.unique([0, *cuts.tolist(), n_rows]).tolist())
