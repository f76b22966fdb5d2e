"""Batches hold every pair once, within the budget, sorted by length."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.support.models.windows import batch_of
from worker.engine.batches.batch_cuts import packed_batches, padded_batches, prefix_batches
from worker.engine.batches.batching import ROW_STEP, TokenBatch
from worker.engine.batches.pairs import EncodedWindow
from worker.engine.batches.segments import Prefixes

lengths = st.lists(st.integers(1, 50), max_size=60).map(lambda some: np.array(some, dtype=int))


def window_of(lengths: np.ndarray, prefixes: Prefixes | None = None) -> EncodedWindow:
    return EncodedWindow(
        ids=np.arange(lengths.sum(), dtype=np.int32),
        types=None,
        lengths=lengths,
        truncated=np.zeros(len(lengths), dtype=bool),
        pair_of_row=np.arange(len(lengths)),
        prefixes=prefixes,
    )


def everything(window: EncodedWindow) -> np.ndarray:
    return np.arange(len(window.lengths))


@given(lengths=lengths, budget=st.integers(1, 200))
def test_packed_batches_fill_the_budget_with_tokens(lengths: np.ndarray, budget: int) -> None:
    window = window_of(lengths)
    batches = list(packed_batches(window, everything(window), budget))
    assert sorted(np.concatenate([[], *batches]).tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert lengths[batch].sum() <= budget or len(batch) == 1
        assert (np.diff(lengths[batch]) <= 0).all()
    for batch, following in pairwise(batches):
        assert lengths[batch].sum() + lengths[following[0]] > budget


@given(lengths=lengths, budget=st.integers(1, 200))
def test_padded_batches_count_their_padding(lengths: np.ndarray, budget: int) -> None:
    window = window_of(lengths)
    batches = list(padded_batches(window, everything(window), budget))
    assert sorted(np.concatenate([[], *batches]).tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert lengths[batch].max() * len(batch) <= budget or len(batch) == 1


@given(
    pairs=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 30)), max_size=60),
    budget=st.integers(1, 200),
)
def test_prefix_batches_count_a_prefix_once_and_hold_whole_groups(
    pairs: list[tuple[int, int]], budget: int
) -> None:
    prefix_of = np.array([prefix for prefix, _ in pairs], dtype=int)
    own = np.array([length for _, length in pairs], dtype=int)
    shared = 7 * prefix_of  # that of number 0 is empty
    window = window_of(shared + own, Prefixes(shared + own, shared, prefix_of))
    batches = list(prefix_batches(window, everything(window), budget))
    assert sorted(np.concatenate([[], *batches]).tolist()) == list(range(len(pairs)))
    for batch in batches:
        n_computed = own[batch].sum() + 7 * sum(set(prefix_of[batch].tolist()))
        assert window.n_computed(batch) == n_computed
        assert n_computed <= budget or len(batch) == 1
    for prefix in set(prefix_of.tolist()):
        whole = np.flatnonzero(prefix_of == prefix)
        if window.n_computed(whole) <= budget:
            assert sum(bool(np.isin(whole, batch).any()) for batch in batches) == 1


def test_a_batch_computes_a_prefix_once_before_its_pairs() -> None:
    # Pairs 0 and 2 begin with tokens 0, 1; pair 1 shares nothing; pair 3 has another prefix.
    prefixes = Prefixes(
        used=np.array([4, 2, 4, 2]), shared=np.array([2, 0, 2, 1]), of_pair=np.array([5, 0, 5, 3])
    )
    window = window_of(np.array([4, 2, 4, 3]), prefixes)
    (pairs,) = prefix_batches(window, np.arange(4), 100)
    batch = TokenBatch.of(window, pairs)
    assert pairs.tolist() == [0, 2, 3, 1]
    assert batch.ids.tolist() == [0, 1, 10, 2, 3, 8, 9, 11, 4, 5]
    assert batch.positions.tolist() == [0, 1, 0, 2, 3, 2, 3, 1, 0, 1]
    assert batch.starts.tolist() == [3, 5, 7, 8, 10]
    segments = batch.segments
    assert segments is not None
    assert segments.ends.tolist() == [0, 2, 3, 5, 7, 8, 10]
    keys = np.split(segments.key_rows.numpy(), segments.key_ends[1:-1].numpy())
    assert [each.tolist() for each in keys] == [
        *([0, 1], [2]),
        *([0, 1, 3, 4], [0, 1, 5, 6], [2, 7], [8, 9]),
    ]
    assert [tuple(run)[:4] for run in segments.pairs] == [(3, 2, 2, 2), (7, 1, 1, 1), (8, 1, 2, 0)]


def test_a_batch_has_positions_starts_and_groups_of_its_pairs() -> None:
    batch = batch_of([3, 2, 2])
    assert batch.positions.tolist() == [0, 1, 2, 0, 1, 0, 1]
    assert batch.starts.tolist() == [0, 3, 5, 7]
    assert [tuple(group) for group in batch.groups] == [(0, 1, 3), (3, 2, 2)]


def test_batches_are_filled_up_with_unused_tokens() -> None:
    batch = batch_of([300, 20, 7])
    filled = batch.filled_up()
    assert len(filled.ids) == len(filled.positions) == 6 * ROW_STEP
    assert torch.equal(filled.ids[: len(batch.ids)], batch.ids)
    assert (filled.groups, filled.n_pairs) == (batch.groups, 3)
    assert filled.filled_up() is filled
