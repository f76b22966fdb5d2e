"""Agreement of two precisions counts differences within queries only."""

from __future__ import annotations

import numpy as np
import pytest

from worker.engine.agreement import measure_agreement


def test_agreement_counts_swaps_within_queries_only() -> None:
    exact = np.array([3.0, 2.0, 1.0, 5.0, 4.0])
    swapped = np.array([3.0, 1.0, 2.0, 5.0, 4.0])
    agreement = measure_agreement(["a", "a", "a", "b", "b"], swapped, exact)
    assert agreement.kendall_tau == pytest.approx((1 / 3 + 1) / 2)
    assert agreement.top10_overlap == 1
    assert agreement.max_difference == 1


def test_agreement_measures_a_changed_top() -> None:
    exact = np.arange(12.0)
    reversed_scores = exact[::-1].copy()
    agreement = measure_agreement(["a"] * 12, reversed_scores, exact)
    assert agreement.kendall_tau == pytest.approx(-1)
    assert agreement.top10_overlap == pytest.approx(0.8)
