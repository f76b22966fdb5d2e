"""Cuts rows into shards of about the same number of bytes, at the edges of row groups if near."""

from __future__ import annotations

import numpy as np

from rankmill.errors import InputError

_N_SHARDS = 32
_MIN_SHARD_PAIRS, _MAX_SHARD_PAIRS = 1024, 32768
_MAX_SHARD_BYTES = 128 * 2**20

# A plan is read by each worker; a footer of 500 bytes may name any number of rows.
_MAX_SHARDS = 1_000_000

# What a row costs besides its columns, in bytes: its special tokens and its results.
_ROW_BYTES = 64
# A row group's edge this near to a cut, in shards, is taken instead: a shard that begins within a
# row group decodes what is before it for nothing.
_NEAR = 0.25


def shard_bounds(
    group_rows: np.ndarray, group_bytes: np.ndarray, shard_pairs: int | None
) -> tuple[int, ...]:
    """The row at which each shard begins, and the end; an empty input has one empty shard.

    Without a wish: about 32 shards, but none under 1,024 pairs (their overhead would show) or over
    32,768 and 128 MB of their columns (a lost worker would lose too much). It depends on nothing
    but the footers.

    Args:
        group_rows: int64 (n,), rows of each row group through all files.
        group_bytes: int64 (n,), bytes of the columns that are read, in each.
        shard_pairs: rows in a shard on average, or None.

    Raises:
        InputError: so many rows that the plan itself would be too large.
    """
    n_rows, n_bytes = sum(group_rows.tolist()), sum(group_bytes.tolist())  # beyond 64 bits too
    n_shards = _n_shards(n_rows, n_bytes, shard_pairs)
    if n_shards > _MAX_SHARDS:
        raise InputError(
            f"the input's footers name {n_rows:,} rows of {n_bytes:,} bytes, which makes "
            f"{n_shards:,} shards, more than {_MAX_SHARDS:,}; if that is so, give a larger "
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


def _n_shards(n_rows: int, n_bytes: int, shard_pairs: int | None) -> int:
    if shard_pairs is not None:
        return max(1, -(-n_rows // shard_pairs))
    size = min(max(-(-n_rows // _N_SHARDS), _MIN_SHARD_PAIRS), _MAX_SHARD_PAIRS)
    by_rows = -(-n_rows // size)
    return max(1, by_rows, min(-(-n_bytes // _MAX_SHARD_BYTES), n_rows))
