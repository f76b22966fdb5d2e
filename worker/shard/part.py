"""Rank a shard's rows within their query groups and publish them as a part, best first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rankmill import storage
from rankmill.contract.job import JobOptions
from rankmill.contract.plan import CANDIDATES_COLUMN, FUSED_COLUMNS
from rankmill.errors import InputError
from rankmill.output.output import Job
from rankmill.tables import fusion
from rankmill.tables.row_bytes import stops
from worker.shard.score import Scored
from worker.shard.spill import Rows

_ROW_GROUP_ROWS = 64 * 1024
# Arrow counts the bytes of a list column's values in 32 bits.
_MAX_LISTS_BYTES = 2**31 - 1
_RESULT_TYPES = {
    **{"logit": pa.float32(), "score": pa.float32(), "truncated": pa.bool_()},
    "fused_score": pa.float64(),
}
# Appended to the rows once they are ranked.
_RANKED = ("score", "rank", *FUSED_COLUMNS)


def write_part(
    job: Job, shard_index: int, scored: Scored, activation: str
) -> tuple[storage.Published, int]:
    """Rank a shard's rows and publish them, with a row group or a list in memory at a time.

    Returns:
        The published part and its number of rows.

    Raises:
        InputError: the list of a query is larger than Arrow can write.
    """
    schema = part_schema(job)
    n_rows = 0

    def write(file: IO[bytes]) -> None:
        nonlocal n_rows
        options = {"compression": "zstd", "use_dictionary": _dictionary_columns(schema)}
        with pq.ParquetWriter(file, schema, **options) as writer:
            for table in _ranked(job, scored, activation, schema):
                writer.write_table(table.cast(schema))
                n_rows += table.num_rows

    published = storage.publish(job.output.part_uri(shard_index), write)
    return published, n_rows


def part_schema(job: Job) -> pa.Schema:
    """Return the columns of every part of a job; they do not depend on the values."""
    columns = job.plan.columns
    kept = {
        column: pa.field(name, job.plan.schema.field(column).type)
        for column, name in columns.kept.items()
    }
    names = job.spec.result_columns
    results = [pa.field(name, _RESULT_TYPES.get(name, pa.int32())) for name in names]
    if columns.candidates is None:
        return pa.schema([*kept.values(), *results])
    of_query = [field for column, field in kept.items() if column not in columns.candidates]
    of_candidate = [field for column, field in kept.items() if column in columns.candidates]
    candidates = pa.list_(pa.struct([*of_candidate, *results]))
    return pa.schema([*of_query, pa.field(CANDIDATES_COLUMN, candidates)])


def rank_groups(
    groups: np.ndarray, logits: np.ndarray, top_k: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Order rows by group, then by logit from high to low; equal logits keep their input order.

    Args:
        groups: int64 (n,), never falling.
        logits: float32 (n,), finite.
        top_k: rows to keep of each group, or None for all.

    Returns:
        The kept rows' positions in their new order, and the rank of each from 1, both (m,).
    """
    # One integer key sorts by both: the group in the high half, the falling logit in the low half.
    # A float's bits, read as an integer, rise with it; those of a negative float fall.
    bits = (0 - logits).view(np.int32)  # 0 - x is never negative zero, whose bits differ
    keys = (groups << 32) + (bits ^ ((bits >> 31) & np.int32(2**31 - 1)))
    order = np.argsort(keys, kind="stable")
    sorted_groups = groups[order]
    begins = np.flatnonzero(np.diff(sorted_groups, prepend=-1))
    sizes = np.diff(np.append(begins, len(order)))
    ranks = np.arange(1, len(order) + 1) - np.repeat(begins, sizes)
    if top_k is not None:
        order, ranks = order[ranks <= top_k], ranks[ranks <= top_k]
    return order, ranks.astype(np.int32)


@dataclass(frozen=True)
class Fused:
    """The kept rows of query groups in the order of both stages.

    Attributes:
        order: int64 (m,), the kept rows' positions in their new order.
        scores: float64 (m,), the fused score of each.
        ranks: int32 (m,), the rank of each by it.
    """

    order: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray


def fused_groups(
    options: JobOptions, groups: np.ndarray, logits: np.ndarray, first: np.ndarray | None
) -> Fused:
    """Order rows by group, then by the fused score; equal scores keep their input order.

    Args:
        options: how to fuse, and the rows to keep of each group.
        groups: int64 (n,), never falling.
        logits: float32 (n,), finite.
        first: float64 (n,), the first stage's scores, NaN for none; None if rows order it.
    """
    if options.fuse == "weighted" and first is not None:
        scores = fusion.weighted(groups, logits, first, options.fuse_weight)
    else:
        scores = fusion.reciprocal_ranks(groups, logits, first, options.fuse_k)
    ranks = fusion.ranks_in_groups(groups, scores)
    order = np.lexsort((ranks, groups))
    if options.top_k is not None:
        order = order[ranks[order] <= options.top_k]
    return Fused(order, scores[order], ranks[order].astype(np.int32))


def activate(logits: np.ndarray, activation: str) -> np.ndarray:
    """Return `score` for `logit`, both float32 (n,), computed in float64 and rounded once.

    `sigmoid` is 1 / (1 + exp(-x)), computed from the side that cannot overflow.
    """
    if activation == "none":
        return logits
    tail = np.exp(-np.abs(logits.astype(np.float64)))
    return np.where(logits >= 0, 1 / (1 + tail), tail / (1 + tail)).astype(np.float32)


@lru_cache(maxsize=8)
def _dictionary_columns(schema: pa.Schema) -> list[str]:
    """Return the leaf columns that a dictionary may shorten; floats such as scores mostly differ.

    A leaf's path is only known from the file, so an empty one is written in memory.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    stored = pq.read_metadata(pa.BufferReader(sink.getvalue())).schema
    leaves = map(stored.column, range(len(stored)))
    return [leaf.path for leaf in leaves if leaf.physical_type not in ("FLOAT", "DOUBLE")]


def _ranked(job: Job, scored: Scored, activation: str, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield tables of up to a row group: rows best first in each query, or a row for each query."""
    rows = scored.kept.close()
    if rows is None:
        return
    logits, groups = np.concatenate(scored.logits), np.concatenate(scored.groups)
    order, ranks = rank_groups(groups, logits, job.spec.top_k if job.spec.fuse is None else None)
    fused = None
    if job.spec.fuse is not None:
        first = np.concatenate(scored.first_scores) if scored.first_scores else None
        fused = fused_groups(job.spec, groups, logits, first)
        ranks = ranks[np.argsort(order)][fused.order]
        order = fused.order
    groups, sizes = groups[order], rows.sizes[order]
    lists = _Lists(rows, groups, order, schema) if job.plan.columns.candidates is not None else None
    start = 0
    for stop in stops(sizes if lists is None else lists.sizes, _ROW_GROUP_ROWS):
        if lists is not None:
            stop = int(np.searchsorted(groups, groups[stop - 1], side="right"))
        if stop <= start:  # the rest of a list that is written
            continue
        at = order[start:stop]
        table = rows.take(at) if lists is None else lists.candidates(start, stop)
        scores = activate(logits[at], activation)
        table = table.append_column("score", pa.array(scores, pa.float32()))
        table = table.append_column("rank", pa.array(ranks[start:stop], pa.int32()))
        if fused is not None:
            for name, values in zip(FUSED_COLUMNS, (fused.scores, fused.ranks), strict=True):
                table = table.append_column(name, pa.array(values[start:stop]))
        yield table.select(schema.names) if lists is None else lists.folded(table, start, stop)
        start = stop


class _Lists:
    """Ranked rows as one row for each query, with the list of its candidates.

    Attributes:
        sizes: int64 (n,), the bytes of each ranked row; the query's columns count in its first row.
    """

    def __init__(self, rows: Rows, groups: np.ndarray, order: np.ndarray, schema: pa.Schema):
        self._groups, self._order, self._schema = groups, order, schema
        self._fields = list(schema.field(CANDIDATES_COLUMN).type.value_type)
        of_candidate = [f.name for f in self._fields if f.name not in _RANKED]
        self._queries, self._candidates = rows.select(schema.names[:-1]), rows.select(of_candidate)
        begins = np.diff(groups, prepend=-1) > 0
        of_queries = np.where(begins, self._queries.sizes[order], 0)
        self.sizes = of_queries + self._candidates.sizes[order]

    def candidates(self, start: int, stop: int) -> pa.Table:
        """Return the candidates of whole groups, from one ranked position to another.

        Raises:
            InputError: they have more bytes than Arrow can write as lists.
        """
        n_bytes = int(self._candidates.sizes[self._order[start:stop]].sum())
        if n_bytes > _MAX_LISTS_BYTES:
            key = self._queries.take(self._order[start : start + 1]).to_pylist()
            raise InputError(
                f"the candidates of the query {str(key)[1:100]} have {n_bytes:,} bytes, more than "
                "a list can hold; --explode writes a row for each, --keep-cols leaves columns out"
            )
        return self._candidates.take(self._order[start:stop])

    def folded(self, table: pa.Table, start: int, stop: int) -> pa.Table:
        """Return a row for each query, with the ranked candidates of `table` as its list."""
        begins = np.flatnonzero(np.diff(self._groups[start:stop], prepend=-1))
        columns = [table[each.name].cast(each.type).combine_chunks() for each in self._fields]
        candidates = pa.ListArray.from_arrays(
            pa.array(np.append(begins, stop - start), pa.int32()),
            pa.StructArray.from_arrays(columns, fields=self._fields),
        )
        queries = self._queries.take(self._order[start:stop][begins])
        return queries.append_column(CANDIDATES_COLUMN, candidates)
