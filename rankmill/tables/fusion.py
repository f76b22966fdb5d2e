"""Fuse the model's ranking of each query with that of the first stage.

Reciprocal rank fusion: 1 / (k + rank) of both, added up (Cormack, Clarke and Büttcher, "Reciprocal
rank fusion outperforms Condorcet and individual rank learning methods", SIGIR 2009, k = 60).
Weighted: a convex combination of both scores, each scaled to 0 to 1 within its query by minimum and
maximum (Lee, "Analyses of multiple evidence combination", SIGIR 1997; Bruch, Gai and Ingber, "An
analysis of fusion functions for hybrid retrieval", TOIS 2023).

A row without a first-stage score gets nothing from there, like a document that the first stage did
not find.
"""

from __future__ import annotations

import numpy as np


def ranks_in_groups(groups: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return each row's rank in its group, from 1: int64 (n,); equal scores keep their order.

    Args:
        groups: int64 (n,), never falling.
        scores: float (n,), high is good; NaN comes last.
    """
    order = np.lexsort((-scores, groups))  # stable, and NaN sorts last
    begins = np.flatnonzero(np.diff(groups[order], prepend=-1))
    sizes = np.diff(np.append(begins, len(order)))
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(1, len(order) + 1) - np.repeat(begins, sizes)
    return ranks


def reciprocal_ranks(
    groups: np.ndarray, logits: np.ndarray, first: np.ndarray | None, k: int
) -> np.ndarray:
    """Return 1 / (k + rank) of both stages, added up: float64 (n,).

    Args:
        groups: int64 (n,), the query of each row, never falling.
        logits: float32 (n,), the model's.
        first: float64 (n,), the first stage's scores, NaN for none; None if the order of the rows
            is its ranking.
        k: the constant.
    """
    ours = 1.0 / (k + ranks_in_groups(groups, logits))
    by = np.zeros(len(groups)) if first is None else first
    theirs = 1.0 / (k + ranks_in_groups(groups, by))
    sums: np.ndarray = ours + np.where(np.isnan(by), 0.0, theirs)
    return sums


def weighted(
    groups: np.ndarray, logits: np.ndarray, first: np.ndarray, weight: float
) -> np.ndarray:
    """Return `weight` of the model's scaled logit and the rest of the first stage's: float64 (n,).

    Args:
        groups: int64 (n,), the query of each row, never falling.
        logits: float32 (n,), the model's.
        first: float64 (n,), the first stage's scores, NaN for none.
        weight: the share of the model, 0 to 1.
    """
    ours, theirs = scaled(groups, logits.astype(np.float64)), scaled(groups, first)
    fused: np.ndarray = weight * ours + (1 - weight) * theirs
    return fused


def scaled(groups: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return scores from 0 to 1 by each group's minimum and maximum: float64 (n,).

    NaN, and the scores of a group where all are equal, become 0.
    """
    if not len(groups):
        return np.zeros(0)
    begins = np.flatnonzero(np.diff(groups, prepend=-1))
    sizes = np.diff(np.append(begins, len(groups)))
    low = np.repeat(np.fmin.reduceat(scores, begins), sizes)
    high = np.repeat(np.fmax.reduceat(scores, begins), sizes)
    with np.errstate(invalid="ignore", over="ignore"):
        # Halves, so that the difference of two large scores is finite.
        spread = high / 2 - low / 2
        values = np.where(spread > 0, (scores / 2 - low / 2) / np.where(spread > 0, spread, 1), 0.0)
    return np.nan_to_num(values, nan=0.0)
