"""The budget of a batch in tokens, which follows the free memory of the device."""

from __future__ import annotations

# Batches that must fit before a halved budget grows again; doubled after each growth in vain.
_MIN_BEFORE_GROWING, _MAX_BEFORE_GROWING = 8, 1024


class BatchBudget:
    """A budget that is halved when the device is full and doubled after batches that fit.

    Attributes:
        max_tokens: the present budget; never more than the first.
    """

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = self._first = max_tokens
        self._n_fitting = 0
        self._n_before_growing = _MIN_BEFORE_GROWING
        self._has_just_grown = False

    def halve(self, n_tokens: int) -> None:
        """Halve the budget after a batch of `n_tokens` did not fit."""
        self.max_tokens = max(1, min(self.max_tokens, n_tokens) // 2)
        if self._has_just_grown:  # it grew too soon
            self._n_before_growing = min(2 * self._n_before_growing, _MAX_BEFORE_GROWING)
        self._n_fitting, self._has_just_grown = 0, False

    def count_fitting(self) -> bool:
        """Count a batch that fits; return whether the budget is larger from now on."""
        self._n_fitting += 1
        if self._n_fitting < self._n_before_growing:
            return False
        self._n_fitting, self._has_just_grown = 0, False
        if self.max_tokens >= self._first:
            return False
        self.max_tokens = min(2 * self.max_tokens, self._first)
        self._has_just_grown = True
        return True
