"""Batches hold every pair once, within the budget, sorted by length."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from worker.engine.agreement import measure_agreement
from worker.engine.batches.batching import ROW_STEP, TokenBatch, packed_batches, padded_batches
from worker.engine.batches.pairs import EncodedWindow
from worker.engine.kernels.attention import GroupedAttention

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


def batch_of(lengths: list[int]) -> TokenBatch:
    total = sum(lengths)
    window = EncodedWindow(
        ids=np.arange(total, dtype=np.int32),
        types=None,
        lengths=np.array(lengths),
        truncated=np.zeros(len(lengths), dtype=bool),
        pair_of_row=np.arange(len(lengths)),
    )
    return TokenBatch.of(window, np.arange(len(lengths)))


def test_a_batch_has_positions_starts_and_groups_of_its_pairs() -> None:
    batch = batch_of([3, 2, 2])
    assert batch.positions.tolist() == [0, 1, 2, 0, 1, 0, 1]
    assert batch.starts.tolist() == [0, 3, 5, 7]
    assert [tuple(group) for group in batch.groups] == [(0, 1, 3), (3, 2, 2)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [None, 3, 16, 200])
def test_grouped_attention_is_masked_attention(dtype: torch.dtype, window: int | None) -> None:
    torch.manual_seed(0)
    batch = batch_of([300, 300, 129, 17, 5, 1, 1])
    qkv = torch.randn(len(batch.ids), 3, 2, 8).to(dtype)
    owner = torch.repeat_interleave(torch.arange(7), batch.starts.diff())
    seen = owner[:, None] == owner[None, :]
    if window is not None:
        place = batch.positions
        seen &= (place[:, None] - place[None, :]).abs() <= window
    query, key, value = qkv.float().transpose(0, 2).unbind(1)
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
    expected = expected.transpose(0, 1).flatten(1)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    attention = GroupedAttention()
    every = attention.every_token(qkv, batch, window).float()
    first = attention.first_token(qkv, batch, window).float()
    torch.testing.assert_close(every, expected, rtol=0, atol=tolerance)
    torch.testing.assert_close(first, expected[batch.first_tokens.long()], rtol=0, atol=tolerance)


def test_agreement_counts_swaps_within_queries_only() -> None:
    exact = np.array([3.0, 2.0, 1.0, 5.0, 4.0])
    swapped = np.array([3.0, 1.0, 2.0, 5.0, 4.0])
    agreement = measure_agreement(["a", "a", "a", "b", "b"], swapped, exact)
    assert agreement.kendall_tau == pytest.approx((1 / 3 + 1) / 2)
    assert agreement.top10_overlap == 1
    assert agreement.max_difference == 1


def test_agreement_measures_a_changed_top() -> None:
    exact = np.arange(12.0)
    reversed_scores = exact[::-1].copy()
    agreement = measure_agreement(["a"] * 12, reversed_scores, exact)
    assert agreement.kendall_tau == pytest.approx(-1)
    assert agreement.top10_overlap == pytest.approx(0.8)


def test_batches_are_filled_up_with_unused_tokens() -> None:
    batch = batch_of([300, 20, 7])
    filled = batch.filled_up()
    assert len(filled.ids) == len(filled.positions) == 2 * ROW_STEP
    assert torch.equal(filled.ids[: len(batch.ids)], batch.ids)
    assert (filled.groups, filled.n_pairs) == (batch.groups, 3)
    assert filled.filled_up() is filled
