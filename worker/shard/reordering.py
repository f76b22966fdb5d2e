"""Summarize how a shard's scores reordered its queries, from arrays that scoring leaves behind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rankmill.contract.reordering import (
    DEPTH,
    FirstStage,
    MovedQuery,
    MovedRow,
    RankScores,
    Reordering,
    Slice,
)
from worker.shard.part import rank_groups

_MAX_RANKS = 32
_N_MOVED = 3
_N_SHOWN = 5


@dataclass(frozen=True)
class RankedRows:
    """The scored rows of a shard, in input order.

    Attributes:
        groups: int64 (n,), query groups from 0, never falling.
        rows: int64 (n,), row numbers in the job's input.
        logits: float32 (n,), finite.
        scores: float32 (n,), the logits after the activation.
        lengths: int64 (n,), tokens.
        truncated: bool (n,).
        first_scores: float64 (n,), of the first stage, NaN if unknown; None if rows order it.
    """

    groups: np.ndarray
    rows: np.ndarray
    logits: np.ndarray
    scores: np.ndarray
    lengths: np.ndarray
    truncated: np.ndarray
    first_scores: np.ndarray | None


def summarize(ranked: RankedRows) -> Reordering:
    """Return the places before and after of a shard's queries, in sums and a few examples.

    A query's movement is the sum over its first DEPTH places r of |log2(b / r)| / log2(r + 1),
    where b is the place before. So a first row that came from place 32 counts 5, and the discount
    is that of nDCG.
    """
    groups = ranked.groups
    sizes = np.bincount(groups) if len(groups) else np.empty(0, np.int64)
    begins = np.cumsum(sizes) - sizes
    before = np.arange(1, len(groups) + 1) - begins[groups]
    kind: FirstStage = "rows"
    if ranked.first_scores is not None:
        order, kind = np.lexsort((-ranked.first_scores, groups)), "score"
        before[order] = before.copy()
    order, ranks = rank_groups(groups, ranked.logits, None)
    after = np.empty(len(groups), np.int64)
    after[order] = ranks
    has_order, is_deep = sizes > 1, sizes > DEPTH
    is_first = after <= DEPTH
    shift = np.abs(np.log2(before / after)) / np.log2(after + 1)
    movement = np.bincount(groups, np.where(is_first, shift, 0.0), len(sizes))
    squares = np.bincount(groups, (before - after).astype(np.float64) ** 2, len(sizes))
    counts = sizes[has_order].astype(np.float64)
    correlations = 1 - 6 * squares[has_order] / (counts * (counts**2 - 1))
    chosen = [n for n in np.argsort(-movement, kind="stable")[:_N_MOVED] if movement[n] > 0]
    return Reordering(
        first_stage=kind,
        n_queries=int(has_order.sum()),
        n_new_first=int(np.sum((after == 1) & (before > 1))),
        correlations=float(correlations.sum()),
        n_deep=int(is_deep.sum()),
        n_new=int(np.sum(is_first & (before > DEPTH))),
        by_rank=_by_rank(after, ranked.logits),
        slices=_slices(ranked, is_first, is_deep[groups]),
        moved=tuple(
            _moved(ranked, slice(begins[n], begins[n] + sizes[n]), before, after, movement[n])
            for n in chosen
        ),
    )


def _moved(
    ranked: RankedRows, at: slice, before: np.ndarray, after: np.ndarray, movement: float
) -> MovedQuery:
    """Return a query with the rows that are or were among its first."""
    now, was = after[at], before[at]
    shown = np.flatnonzero((now <= _N_SHOWN) | (was <= _N_SHOWN))
    shown = shown[np.argsort(now[shown])]
    return MovedQuery(
        movement=round(float(movement), 6),
        n_rows=len(now),
        rows=tuple(
            MovedRow(
                row=int(ranked.rows[at][n]),
                before=int(was[n]),
                after=int(now[n]),
                score=float(ranked.scores[at][n]),
            )
            for n in shown
        ),
    )


def _by_rank(after: np.ndarray, logits: np.ndarray) -> RankScores:
    at, kept = after[after <= _MAX_RANKS] - 1, logits[after <= _MAX_RANKS].astype(np.float64)
    return RankScores(
        n_rows=tuple(np.bincount(at).tolist()),
        logits=tuple(np.bincount(at, kept).tolist()),
        squares=tuple(np.bincount(at, kept**2).tolist()),
    )


def _slices(ranked: RankedRows, is_first: np.ndarray, is_deep: np.ndarray) -> tuple[Slice, ...]:
    exponents = np.ceil(np.log2(np.maximum(ranked.lengths, 1))).astype(np.int64)
    keys, at = np.unique(exponents * 2 + ranked.truncated, return_inverse=True)
    sums = [
        np.bincount(at, weights, len(keys)).tolist()
        for weights in (None, is_first & is_deep, is_deep, ranked.logits.astype(np.float64))
    ]
    return tuple(
        Slice(
            max_tokens=2 ** (key // 2),
            truncated=bool(key % 2),
            n_rows=int(n_rows),
            n_first=int(n_first),
            n_deep=int(n_deep),
            logits=logits,
        )
        for key, n_rows, n_first, n_deep, logits in zip(keys.tolist(), *sums, strict=True)
    )
