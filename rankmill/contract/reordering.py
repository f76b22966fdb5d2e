"""The reordering of a shard's queries by its scores, small enough for its report.

Places count from 1 among a query's scored rows, before `top_k` cuts them. Places before are those
of the first stage.
"""

from __future__ import annotations

from typing import Literal

from rankmill.contract.base import Part

# The first places of a query that readers look at.
DEPTH = 10

FirstStage = Literal["score", "rows"]


class MovedRow(Part):
    """A row by its number in the job's input, with its places and its score."""

    row: int
    before: int
    after: int
    score: float


class MovedQuery(Part):
    """A query whose first places moved far.

    Attributes:
        movement: how far, by `worker.shard.reordering`; comparable between all queries.
        n_rows: its scored rows.
        rows: those that are first now in order, then those that were first and are no longer.
    """

    movement: float
    n_rows: int
    rows: tuple[MovedRow, ...]


class RankScores(Part):
    """Sums over the rows at each rank from 1: their number, their logits and these squared."""

    n_rows: tuple[int, ...] = ()
    logits: tuple[float, ...] = ()
    squares: tuple[float, ...] = ()


class Slice(Part):
    """Sums over the rows of similar length that were truncated, or were not.

    Attributes:
        max_tokens: a power of two; the rows have more than half of it, and at most all.
        n_first: rows in the first DEPTH places of queries that have more rows.
        n_deep: rows of these queries.
    """

    max_tokens: int
    truncated: bool
    n_rows: int
    n_first: int
    n_deep: int
    logits: float


class Reordering(Part):
    """The queries of a shard before and after.

    Attributes:
        first_stage: the order before, by the column that is fused, else `score`, or by its rows.
        n_queries: those with two scored rows or more; the others have no order.
        n_new_first: of these, queries with another first row.
        correlations: the sum of their rank correlations (Spearman) of before and after.
        n_deep: queries with more than DEPTH rows.
        n_new: rows in the first DEPTH places of these that were not there before.
        moved: the few that moved most, most first.
    """

    first_stage: FirstStage
    n_queries: int
    n_new_first: int
    correlations: float
    n_deep: int
    n_new: int
    by_rank: RankScores
    slices: tuple[Slice, ...]
    moved: tuple[MovedQuery, ...]
