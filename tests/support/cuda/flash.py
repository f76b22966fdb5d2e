"""Torch's attention over packed texts and its product in fp8, in plain torch on a CPU.

They have the checks of the kernels on CUDA, which a CPU's operators do not make.
"""

from __future__ import annotations

import math

import torch


def varlen_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    ends_q: torch.Tensor,
    ends_k: torch.Tensor,
    max_q: int,
    max_k: int,
    is_causal: bool = False,
    scale: float | None = None,
    window_size: list[int] | None = None,
    enable_gqa: bool = False,
    seqused_k: torch.Tensor | None = None,
    block_table: torch.Tensor | None = None,
    num_splits: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Attend as `torch.ops.torch_attn._varlen_attn`; windows are aligned to the last key."""
    assert seqused_k is None and block_table is None
    for part in (query, key, value):
        assert part.dim() == 3 and part.stride(-1) == 1, (part.shape, part.stride())
        assert part.dtype == query.dtype in (torch.float16, torch.bfloat16), part.dtype
        assert part.shape[2] % 8 == 0 and part.shape[2] <= 256, part.shape
    for ends, tokens, longest in ((ends_q, query, max_q), (ends_k, key, max_k)):
        assert ends.dtype == torch.int32 and ends.is_contiguous() and type(longest) is int
        assert int(ends[0]) == 0 and int(ends[-1]) == len(tokens)
        assert int(ends.diff().max()) <= longest
    assert len(ends_q) == len(ends_k) and key.shape == value.shape
    n_sharing = query.shape[1] // key.shape[1]
    assert (n_sharing > 1) <= enable_gqa
    key, value = (part.repeat_interleave(n_sharing, 1) for part in (key, value))
    left, right = window_size or (-1, 0 if is_causal else -1)
    out = torch.empty_like(query)
    for n in range(len(ends_q) - 1):
        of_q, of_k = slice(ends_q[n], ends_q[n + 1]), slice(ends_k[n], ends_k[n + 1])
        q, k, v = (t.float().transpose(0, 1) for t in (query[of_q], key[of_k], value[of_k]))
        scores = q @ k.transpose(1, 2) * (scale or 1 / math.sqrt(query.shape[2]))
        n_q, n_k = scores.shape[1:]
        away = torch.arange(n_k)[None] - (torch.arange(n_q)[:, None] + n_k - n_q)
        hidden = (away < -left if left >= 0 else away > n_k) | (right >= 0) & (away > right)
        weights = scores.masked_fill(hidden, float("-inf")).softmax(-1).to(query.dtype)
        out[of_q] = (weights.float() @ v).transpose(0, 1).to(query.dtype)
    return out, torch.empty(query.shape[1], len(query)), torch.empty(2, dtype=torch.int64)
