"""A scorer that does nothing, or sleeps like a device: for measuring everything but scoring.

A job asks for it as model `null`, or `null:2000` for 2,000 pairs a second.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from worker.engine.prefetch import map_ahead
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

    def score(self, windows: Iterable[PairWindow]) -> Iterator[WindowScores]:
        for window in map_ahead(lambda read: read, windows):
            n_pairs = len(window.queries)
            busy_s = n_pairs / self._pairs_per_s if self._pairs_per_s else 0.0
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
                logits=np.array(
                    [
                        zlib.crc32(document.encode(), zlib.crc32(query.encode())) % 9973 / 997
                        for query, document in zip(window.queries, window.documents, strict=True)
                    ],
                    dtype=np.float32,
                ),
                n_tokens=np.ones(n_pairs, dtype=np.int32),
                truncated=np.zeros(n_pairs, dtype=bool),
            )

    def agreement(self, window: PairWindow) -> Agreement:
        return Agreement(len(window.queries), 0, 1.0, 1.0, 0.0)
