"""Fused scores equal the formulas, written out for one query at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rankmill.tables.fusion import ranks_in_groups, reciprocal_ranks, scaled, weighted

NAN = math.nan


def plain_ranks(scores: list[float]) -> list[int]:
    order = sorted(range(len(scores)), key=lambda at: -scores[at])
    return [order.index(at) + 1 for at in range(len(scores))]


def plain_scaled(scores: list[float]) -> list[float]:
    known = [score for score in scores if not math.isnan(score)]
    if len(set(known)) < 2:
        return [0.0] * len(scores)
    low, high = min(known), max(known)
    return [0.0 if math.isnan(score) else (score - low) / (high - low) for score in scores]


@pytest.fixture
def queries() -> list[tuple[list[float], list[float]]]:
    """Return logits and first-stage scores of some queries, with ties and rows without a score."""
    rng = np.random.default_rng(0)
    found = []
    for n_rows in (1, 2, 7, 40):
        logits = rng.integers(-4, 4, n_rows).astype(float).tolist()
        first = (rng.integers(0, 9, n_rows) / 4).tolist()
        found.append((logits, [NAN if value > 1.9 else value for value in first]))
    return [*found, ([1.0, 2.0], [NAN, NAN]), ([3.0, 3.0], [5.0, 5.0])]


def test_fused_scores_equal_the_formulas(queries: list[tuple[list[float], list[float]]]) -> None:
    groups = np.repeat(np.arange(len(queries)), [len(logits) for logits, _ in queries])
    logits = np.concatenate([logits for logits, _ in queries]).astype(np.float32)
    first = np.concatenate([first for _, first in queries])
    by_ranks, by_order, by_scores = [], [], []
    for ours, theirs in queries:
        known = [score for score in theirs if not math.isnan(score)]
        place = iter(plain_ranks(known))
        gains = [0 if math.isnan(score) else 1 / (60 + next(place)) for score in theirs]
        ranks = plain_ranks(ours)
        by_ranks += [1 / (60 + rank) + gain for rank, gain in zip(ranks, gains, strict=True)]
        by_order += [1 / (5 + rank) + 1 / (5 + at) for at, rank in enumerate(ranks, 1)]
        both = zip(plain_scaled(ours), plain_scaled(theirs), strict=True)
        by_scores += [0.3 * one + 0.7 * other for one, other in both]
    assert reciprocal_ranks(groups, logits, first, 60) == pytest.approx(by_ranks, rel=1e-12)
    assert reciprocal_ranks(groups, logits, None, 5) == pytest.approx(by_order, rel=1e-12)
    assert weighted(groups, logits, first, 0.3) == pytest.approx(by_scores, rel=1e-12)


def test_ties_keep_the_order_of_the_rows() -> None:
    groups, scores = np.array([0, 0, 0, 1, 1]), np.array([1.0, 2.0, 1.0, NAN, -5.0])
    assert ranks_in_groups(groups, scores).tolist() == [2, 1, 3, 2, 1]


def test_the_range_of_float64_is_scaled() -> None:
    scores = np.array([-1.7e308, 0.0, 1.7e308])
    assert scaled(np.zeros(3, np.int64), scores) == pytest.approx([0, 0.5, 1])
    assert len(scaled(np.zeros(0, np.int64), np.zeros(0))) == 0
