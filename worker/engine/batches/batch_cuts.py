"""Cut pairs into batches by tokens, in the order that suits a path."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from worker.engine.batches.pairs import EncodedWindow
from worker.engine.batches.segments import Prefixes

# Yields the pairs of each batch for a window, some of its pairs and a budget in tokens. One pair
# may exceed the budget by itself.
CutBatches = Callable[[EncodedWindow, np.ndarray, int], Iterator[np.ndarray]]


def packed_batches(
    window: EncodedWindow, pairs: np.ndarray, max_batch_tokens: int
) -> Iterator[np.ndarray]:
    """Yield the pairs of each batch, longest first, as `CutBatches`."""
    ordered = _longest_first(window, pairs)
    ends = np.cumsum(window.lengths[ordered])
    start = 0
    while start < len(ordered):
        budget = max_batch_tokens + (ends[start - 1] if start else 0)
        stop = max(start + 1, int(np.searchsorted(ends, budget, side="right")))
        yield ordered[start:stop]
        start = stop


def padded_batches(
    window: EncodedWindow, pairs: np.ndarray, max_batch_tokens: int
) -> Iterator[np.ndarray]:
    """Yield the pairs of each batch as `packed_batches`; padding counts towards the budget."""
    ordered = _longest_first(window, pairs)
    start = 0
    while start < len(ordered):
        longest = max(1, int(window.lengths[ordered[start]]))
        size = max(1, max_batch_tokens // longest)
        yield ordered[start : start + size]
        start += size


def prefix_batches(
    window: EncodedWindow, pairs: np.ndarray, max_batch_tokens: int
) -> Iterator[np.ndarray]:
    """Yield the pairs of each batch as `CutBatches`; a prefix counts once.

    A batch holds all pairs of a prefix where they fit. Within a batch, pairs of equal shapes are
    next to each other, longest first.
    """
    prefixes = window.prefixes or Prefixes.none(window.lengths)
    own = prefixes.used - prefixes.shared
    batch: list[np.ndarray] = []
    room = max_batch_tokens
    for group in _by_prefix(prefixes, pairs):
        n_shared = int(prefixes.shared[group[0]])
        whole = n_shared + int(own[group].sum())
        if batch and room < whole <= max_batch_tokens:
            yield _in_order(batch, prefixes)
            batch, room = [], max_batch_tokens
        while len(group):
            ends = n_shared + np.cumsum(own[group])
            n_fitting = int(np.searchsorted(ends, room, side="right"))
            if not n_fitting and batch:
                yield _in_order(batch, prefixes)
                batch, room = [], max_batch_tokens
                continue
            n_fitting = max(1, n_fitting)
            batch.append(group[:n_fitting])
            room -= int(ends[n_fitting - 1])
            group = group[n_fitting:]
    if batch:
        yield _in_order(batch, prefixes)


def _longest_first(window: EncodedWindow, pairs: np.ndarray) -> np.ndarray:
    ordered: np.ndarray = pairs[np.argsort(-window.lengths[pairs], kind="stable")]
    return ordered


def _by_prefix(prefixes: Prefixes, pairs: np.ndarray) -> list[np.ndarray]:
    """Return the pairs of each prefix, longest first, the prefix with the longest pair first."""
    if not len(pairs):
        return []
    of_pair = prefixes.of_pair[pairs]
    ordered = pairs[np.lexsort([-prefixes.used[pairs], of_pair])]
    groups = np.split(ordered, np.flatnonzero(np.diff(prefixes.of_pair[ordered])) + 1)
    return sorted(groups, key=lambda group: -int(prefixes.used[group[0]]))


def _in_order(batch: list[np.ndarray], prefixes: Prefixes) -> np.ndarray:
    pairs = np.concatenate(batch)
    own = prefixes.used[pairs] - prefixes.shared[pairs]
    ordered: np.ndarray = pairs[np.lexsort([-own, -prefixes.shared[pairs]])]
    return ordered
