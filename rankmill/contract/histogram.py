"""Histograms of scores and lengths, of which a job's is the sum of its shards'."""

from __future__ import annotations

import math

import numpy as np

from rankmill.contract.results import Histogram

# Logits beyond this are counted in the outermost buckets.
_LOGIT_LIMIT = 32.0
_LOGIT_WIDTH = 0.5
_SIGMOID_WIDTH = 0.02
_LENGTH_BUCKETS = 64


def score_histogram(scores: np.ndarray, activation: str) -> Histogram:
    """Return the histogram of finite scores (n,); its buckets depend only on the activation."""
    if activation == "sigmoid":
        return _histogram(scores, _SIGMOID_WIDTH, 0.0, 1.0)
    return _histogram(scores, _LOGIT_WIDTH, -_LOGIT_LIMIT, _LOGIT_LIMIT)


def length_histogram(n_tokens: np.ndarray, max_length: int) -> Histogram:
    """Return the histogram of token counts (n,); its buckets depend only on `max_length`."""
    width = 1
    while width * _LENGTH_BUCKETS < max_length:
        width *= 2
    return _histogram(n_tokens, width, 0, max(max_length, 1))


class HistogramSum:
    """The sum of histograms; those of another width than the first are left out."""

    def __init__(self) -> None:
        self._width: float | None = None
        self._counts: dict[int, int] = {}

    def add(self, histogram: Histogram) -> None:
        """Add the counts if the width is the first histogram's."""
        if self._width is None:
            self._width = histogram.width
        if histogram.width == self._width:
            for bucket, count in enumerate(histogram.counts, histogram.first):
                self._counts[bucket] = self._counts.get(bucket, 0) + count

    def total(self) -> Histogram | None:
        """Return the sum; None if nothing was counted."""
        if self._width is None or not self._counts:
            return None
        buckets = range(min(self._counts), max(self._counts) + 1)
        counts = tuple(self._counts.get(bucket, 0) for bucket in buckets)
        return Histogram(width=self._width, first=buckets[0], counts=counts)


def _histogram(values: np.ndarray, width: float, low: float, high: float) -> Histogram:
    """Count values beyond `low` or `high`, and `high` itself, in the outermost buckets."""
    if not len(values):
        return Histogram(width=width)
    first, last = round(low / width), math.ceil(high / width)
    # Neither 0.02 nor a float32 is exact: round the quotients before the floor.
    buckets = np.floor(np.round(values.astype(np.float64) / width, 4)).astype(np.int64)
    counts = np.bincount(np.clip(buckets, first, max(last - 1, first)) - first)
    begin = int(np.flatnonzero(counts)[0])
    return Histogram(width=width, first=first + begin, counts=tuple(counts[begin:].tolist()))
