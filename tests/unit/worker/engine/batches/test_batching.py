"""Batches hold every pair once, within the budget, sorted by length."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.support.models.windows import batch_of
from worker.engine.batches.batching import ROW_STEP, packed_batches, padded_batches

lengths = st.lists(st.integers(1, 50), max_size=60).map(np.array)


@given(lengths=lengths, budget=st.integers(1, 200))
def test_packed_batches_fill_the_budget_with_tokens(lengths: np.ndarray, budget: int) -> None:
    batches = list(packed_batches(lengths, budget))
    assert sorted(np.concatenate([[], *batches]).tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert lengths[batch].sum() <= budget or len(batch) == 1
        assert (np.diff(lengths[batch]) <= 0).all()
    for batch, following in pairwise(batches):
        assert lengths[batch].sum() + lengths[following[0]] > budget


@given(lengths=lengths, budget=st.integers(1, 200))
def test_padded_batches_count_their_padding(lengths: np.ndarray, budget: int) -> None:
    batches = list(padded_batches(lengths, budget))
    assert sorted(np.concatenate([[], *batches]).tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert lengths[batch].max() * len(batch) <= budget or len(batch) == 1


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
