"""Arrays of rows of unequal length: one flat array, and where each row starts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np


def exclusive_cumsum(lengths: np.ndarray) -> np.ndarray:
    """Where each of some pieces of these lengths starts when they lie one after the other."""
    starts = np.zeros(len(lengths), dtype=np.int64)
    np.cumsum(lengths[:-1], out=starts[1:])
    return starts


def ragged_arange(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """`concatenate([arange(s, s + c) for s, c in zip(starts, counts)])`, without the loop."""
    shifts = np.repeat(starts - exclusive_cumsum(counts), counts)
    return shifts + np.arange(len(shifts))


def row_lengths(rows: Sequence[Sequence[int]]) -> np.ndarray:
    return np.fromiter((len(row) for row in rows), np.int64, len(rows))


def flatten(rows: Iterable[Iterable[int]], total: int, dtype: type) -> np.ndarray:
    return np.fromiter(chain.from_iterable(rows), dtype, total)
