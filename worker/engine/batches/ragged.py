"""Rows of unequal length as one flat array and the start of each row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np


def exclusive_cumsum(lengths: np.ndarray) -> np.ndarray:
    """Return the start of each piece, int64, when pieces of these lengths follow each other."""
    starts = np.zeros(len(lengths), dtype=np.int64)
    np.cumsum(lengths[:-1], out=starts[1:])
    return starts


def ragged_arange(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return `concatenate([arange(s, s + c) for s, c in zip(starts, counts)])` without a loop."""
    shifts = np.repeat(starts - exclusive_cumsum(counts), counts)
    return shifts + np.arange(len(shifts))


def row_lengths(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the length of each row, int64 (rows,)."""
    return np.fromiter((len(row) for row in rows), np.int64, len(rows))


def flatten(rows: Iterable[Iterable[int]], total: int, dtype: type) -> np.ndarray:
    """Return the `total` numbers of all rows as one array."""
    return np.fromiter(chain.from_iterable(rows), dtype, total)
