"""A scorer that computes nothing, to measure everything but scoring.

A job names it as model `null`, or `null:2000` to wait as for a device of 2,000 pairs per second.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa

from worker.arrow_text import text_bytes
from worker.engine.prefetch import ahead
from worker.engine.scorer import Agreement, PairWindow, ScorerInfo, ScorerStats, WindowScores


class NullScorer:
    """Score each pair by a number that depends only on its texts."""

    def __init__(self, pairs_per_s: float | None) -> None:
        self._pairs_per_s = pairs_per_s
        self.stats = ScorerStats()
        self.info = ScorerInfo(
            architecture="none",
            path="padded",
            precision="fp32",
            device="none",
            max_length=0,
            activation="none",
            path_reason="nothing is scored",
            deterministic=True,
            kernels="none",
        )

    def have_weights_changed(self) -> bool:
        """Return False: there are no weights."""
        return False

    def prove(self) -> None:
        """Do nothing: there is no device that could fail."""

    def score(self, windows: Iterable[PairWindow]) -> Iterator[WindowScores]:
        """Yield the scores of each window, in order, after the time that a device would take."""
        for logits in ahead(map(_numbers, windows)):
            n_pairs = len(logits)
            busy_s = n_pairs / self._pairs_per_s if self._pairs_per_s else 0.0
            if busy_s:
                time.sleep(busy_s)
            self.stats = replace(
                self.stats,
                n_pairs=self.stats.n_pairs + n_pairs,
                n_unique_pairs=self.stats.n_unique_pairs + n_pairs,
                n_tokens=self.stats.n_tokens + n_pairs,
                device_busy_s=self.stats.device_busy_s + busy_s,
                wall_s=self.stats.wall_s + busy_s,
            )
            yield WindowScores(
                logits=logits,
                n_tokens=np.ones(n_pairs, dtype=np.int32),
                truncated=np.zeros(n_pairs, dtype=bool),
            )

    def agreement(self, window: PairWindow, logits: np.ndarray | None = None) -> Agreement:
        """Return perfect agreement with fp32."""
        return Agreement(len(window.queries), 0, 1.0, 1.0, 0.0)


def _numbers(window: PairWindow) -> np.ndarray:
    """Return float32 (n,) from 0 to 10, made of lengths and last bytes without copying texts."""
    queries, _ = text_bytes(pa.array(window.queries, pa.large_string()))
    documents, content = text_bytes(pa.array(window.documents, pa.large_string()))
    last = content[documents[1:] - 1].astype(np.int64)
    mixed = (7 * np.diff(queries) + 31 * np.diff(documents) + 997 * last) % 9973
    return np.asarray(mixed / 997, np.float32)
