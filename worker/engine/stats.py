"""Counters of a scorer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class ScorerStats:
    """Totals since the scorer was loaded.

    Attributes:
        n_pairs: rows scored.
        n_unique_pairs: pairs that the model scored; equal ones within a window count once.
        n_tokens: tokens that the model scored, special tokens included.
        n_truncated: rows scored whose text was truncated.
        device_busy_s: seconds the device spent in forwards.
        wall_s: seconds from the request for the first window to the last scores.
        starved_s: seconds of these in which the next window was not yet read and tokenized.
        n_computed: tokens of all batches; a prefix that pairs of a batch share counts once.
    """

    n_pairs: int = 0
    n_unique_pairs: int = 0
    n_tokens: int = 0
    n_truncated: int = 0
    device_busy_s: float = 0.0
    wall_s: float = 0.0
    starved_s: float = 0.0
    n_computed: int = 0

    @property
    def n_duplicates(self) -> int:
        """The rows that got the score of an equal pair."""
        return self.n_pairs - self.n_unique_pairs

    @property
    def device_busy_share(self) -> float:
        """The share of the time that the device was busy, 0 to 1; 0 before the first score."""
        return self.device_busy_s / self.wall_s if self.wall_s else 0.0


@dataclass(frozen=True)
class BatchRun:
    """One batch that has run on the device.

    Attributes:
        n_tokens: computed tokens, without padding; a shared prefix counts once.
        max_tokens: the budget of a batch.
        busy_s: seconds on the device.
    """

    n_pairs: int
    n_tokens: int
    max_tokens: int
    busy_s: float


# Called with each batch after its logits have arrived.
OnBatch = Callable[[BatchRun], None]


def ignore_batch(batch: BatchRun) -> None:
    """Ignore a batch: the `OnBatch` of scorers that nobody observes."""
