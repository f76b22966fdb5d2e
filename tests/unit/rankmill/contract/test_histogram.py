"""Histograms of a shard: each value is in its bucket, and sums lose none."""

from __future__ import annotations

import numpy as np
import pytest

from rankmill.contract.histogram import HistogramSum, length_histogram, score_histogram
from rankmill.contract.results import Histogram


def found(histogram: Histogram) -> dict[float, int]:
    """Count by the bucket's start."""
    starts = (round((histogram.first + n) * histogram.width, 6) for n in range(1000))
    return {start: n for start, n in zip(starts, histogram.counts, strict=False) if n}


def test_scores_after_a_sigmoid_lie_between_0_and_1() -> None:
    scores = np.array([0.0, 0.019, 0.02, 0.5, 0.999, 1.0], dtype=np.float32)
    histogram = score_histogram(scores, "sigmoid")
    assert found(histogram) == {0.0: 2, 0.02: 1, 0.5: 1, 0.98: 2}


def test_every_edge_of_a_float32_score_is_in_the_bucket_that_it_opens() -> None:
    edges = (np.arange(50) * 0.02).astype(np.float32)
    assert score_histogram(edges, "sigmoid").counts == (1,) * 50


def test_logits_far_out_are_counted_at_the_ends() -> None:
    logits = np.array([-1e9, -32, -0.1, 0, 0.4, 31.9, 1e9], dtype=np.float32)
    assert found(score_histogram(logits, "none")) == {-32.0: 2, -0.5: 1, 0.0: 2, 31.5: 2}


@pytest.mark.parametrize(
    ("max_length", "width"), [(0, 1), (64, 1), (160, 4), (512, 8), (8192, 128)]
)
def test_lengths_have_at_most_64_buckets_whatever_the_model(max_length: int, width: int) -> None:
    lengths = np.arange(max_length + 1)
    histogram = length_histogram(lengths, max_length)
    assert histogram.width == width and len(histogram.counts) <= 64
    assert sum(histogram.counts) == len(lengths)


def test_no_scores_give_an_empty_histogram() -> None:
    assert score_histogram(np.empty(0, np.float32), "none").counts == ()


def test_the_sum_of_histograms_is_the_histogram_of_all_values() -> None:
    values = np.random.default_rng(0).normal(0, 9, 5000).astype(np.float32)
    total = HistogramSum()
    assert total.total() is None
    for some in (values[:0], values[:17], values[17:18], values[18:]):
        total.add(score_histogram(some, "none"))
    assert total.total() == score_histogram(values, "none")
