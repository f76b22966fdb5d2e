"""Ranks within query groups: best logit first, ties by input order."""

from __future__ import annotations

import numpy as np


def rank_groups(
    groups: np.ndarray, logits: np.ndarray, top_k: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Order rows by group, then by logit from high to low; equal logits keep their input order.

    Args:
        groups: int64 (n,), never falling.
        logits: float32 (n,), finite.
        top_k: rows to keep of each group, or None for all.

    Returns:
        The kept rows' positions in their new order, and each one's rank from 1, both (m,).
    """
    order = np.argsort(_keys(groups, logits), kind="stable")
    sorted_groups = groups[order]
    begins = np.flatnonzero(np.diff(sorted_groups, prepend=-1))
    sizes = np.diff(np.append(begins, len(order)))
    ranks = np.arange(1, len(order) + 1) - np.repeat(begins, sizes)
    if top_k is not None:
        order, ranks = order[ranks <= top_k], ranks[ranks <= top_k]
    return order, ranks.astype(np.int32)


def _keys(groups: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """int64 (n,) that rise with the group and, within it, fall with the logit.

    A float's bits, read as an integer, rise with it; those of a negative one with its opposite.
    """
    bits = (0 - logits).view(np.int32)  # 0 - x knows no negative zero, whose bits differ
    return (groups << 32) + (bits ^ ((bits >> 31) & np.int32(2**31 - 1)))


def activate(logits: np.ndarray, activation: str) -> np.ndarray:
    """`score` from `logit`, computed in float64 and rounded once to float32.

    `sigmoid` is 1 / (1 + exp(-x)), taken from the side that cannot overflow.
    """
    if activation == "none":
        return logits
    tail = np.exp(-np.abs(logits.astype(np.float64)))
    return np.where(logits >= 0, 1 / (1 + tail), tail / (1 + tail)).astype(np.float32)
