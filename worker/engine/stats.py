"""What a scorer has done so far, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ScorerStats:
    """Totals since the scorer was loaded.

    Attributes:
        n_pairs: rows scored.
        n_unique_pairs: pairs the model saw; equal ones within a window count once.
        n_tokens: tokens the model saw, special tokens included.
        device_busy_s: seconds the device spent in forwards.
        wall_s: seconds from asking for the first window to handing out the last scores.
    """

    n_pairs: int = 0
    n_unique_pairs: int = 0
    n_tokens: int = 0
    device_busy_s: float = 0.0
    wall_s: float = 0.0

    @property
    def device_busy_share(self) -> float:
        """0 to 1; 0 before anything was scored."""
        return self.device_busy_s / self.wall_s if self.wall_s else 0.0
