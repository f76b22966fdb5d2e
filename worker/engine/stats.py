"""What a scorer has done so far, in numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class ScorerStats:
    """Totals since the scorer was loaded.

    Attributes:
        n_pairs: rows scored.
        n_unique_pairs: pairs the model saw; equal ones within a window count once.
        n_tokens: tokens the model saw, special tokens included.
        n_truncated: rows scored whose text was cut.
        device_busy_s: seconds the device spent in forwards.
        wall_s: seconds from asking for the first window to handing out the last scores.
        starved_s: those of them in which the next window was not yet read and tokenized.
    """

    n_pairs: int = 0
    n_unique_pairs: int = 0
    n_tokens: int = 0
    n_truncated: int = 0
    device_busy_s: float = 0.0
    wall_s: float = 0.0
    starved_s: float = 0.0

    @property
    def n_duplicates(self) -> int:
        """Rows that took the score of an equal pair."""
        return self.n_pairs - self.n_unique_pairs

    @property
    def device_busy_share(self) -> float:
        """0 to 1; 0 before anything was scored."""
        return self.device_busy_s / self.wall_s if self.wall_s else 0.0


@dataclass(frozen=True)
class BatchRun:
    """One batch that has been through the device.

    Attributes:
        n_tokens: without padding.
        max_tokens: how many a batch may have.
        busy_s: seconds on the device.
    """

    n_pairs: int
    n_tokens: int
    max_tokens: int
    busy_s: float


# Told of each batch as its logits arrive.
OnBatch = Callable[[BatchRun], None]


def unheard(batch: BatchRun) -> None:
    """For those who do not want to be told."""
