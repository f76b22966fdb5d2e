"""A scorer that does nothing, or sleeps like a device: for measuring everything but scoring.

A job asks for it as model `null`, or `null:2000` for 2,000 pairs a second.
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
    """Gives each pair a number that depends on its texts alone, in the time a device would take."""

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
        )

    def prove(self) -> None:
        """There is no device to fail."""

    def score(self, windows: Iterable[PairWindow]) -> Iterator[WindowScores]:
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

    def agreement(self, window: PairWindow) -> Agreement:
        return Agreement(len(window.queries), 0, 1.0, 1.0, 0.0)


def _numbers(window: PairWindow) -> np.ndarray:
    """From 0 to 10, float32 (n,): of lengths and last bytes, read where they lie in Arrow."""
    queries, _ = text_bytes(pa.array(window.queries, pa.large_string()))
    documents, content = text_bytes(pa.array(window.documents, pa.large_string()))
    last = content[documents[1:] - 1].astype(np.int64)
    mixed = (7 * np.diff(queries) + 31 * np.diff(documents) + 997 * last) % 9973
    return np.asarray(mixed / 997, np.float32)
