"""Attention over packed pairs equals masked attention over all tokens."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tests.support.models.windows import batch_of
from worker.engine.kernels.attention import GroupedAttention


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
