"""Attention over packed pairs, one run of equal lengths at a time: no mask, any device, any dtype.

Each pair's result depends on its own tokens only, to the last bit. The kernel is chosen by length
and dtype, never by the number of pairs in a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

import torch
from torch.nn import functional as F

from worker.engine.batches.batching import LengthGroup, TokenBatch

# In a reduced precision, attention over up to this many tokens is two fp32 matrix products.
# They are 1.7 times as fast as SDPA's CPU kernel (heads of 32, 80 tokens) and as bf16 products.
# oneDNN compiles a bf16 kernel for every shape, at milliseconds and a megabyte each; real work has
# thousands of shapes. fp32 stays with SDPA, whose sums are those of the reference.
_BMM_MAX_LENGTH = 384

# SDPA's CPU kernel takes at least this many queries at a time. The first block by itself has the
# same bits as among all; a product for the first query alone is summed in another order.
_SDPA_QUERIES = 32

# Up to this many tokens, a mask over all scores is cheaper than blocks of a sliding window.
_SLIDING_MIN_LENGTH = 256

# Queries in a block of sliding-window attention; work is proportional to it plus two windows.
_BLOCK = 128


class Attention(Protocol):
    """Attention over the tokens of each pair.

    `qkv` is (tokens, 3, heads, head_dim). `window` is the reach to either side; None reaches all.
    """

    def every_token(
        self, qkv: torch.Tensor, batch: TokenBatch, window: int | None = None
    ) -> torch.Tensor:
        """Return the output of every token, (tokens, heads * head_dim)."""
        ...

    def first_token(
        self, qkv: torch.Tensor, batch: TokenBatch, window: int | None = None
    ) -> torch.Tensor:
        """Return the output of each pair's first token, (pairs, heads * head_dim)."""
        ...


class GroupedAttention:
    """The `Attention` of CPUs, and of fp32 on any device."""

    def __init__(self, bias: Callable[[int], torch.Tensor] | None = None) -> None:
        """Take what is added to the scores of texts of a length, (heads, queries, keys)."""
        self._bias = bias

    def every_token(
        self, qkv: torch.Tensor, batch: TokenBatch, window: int | None = None
    ) -> torch.Tensor:
        """Return the output as `Attention.every_token`."""
        out = qkv.new_zeros(qkv.shape[0], qkv.shape[2] * qkv.shape[3])
        for group in batch.groups:
            rows = slice(group.start, group.start + group.n_pairs * group.length)
            by_bmm = qkv.dtype != torch.float32 and group.length <= _BMM_MAX_LENGTH
            query, key, value = _heads(qkv[rows].float() if by_bmm else qkv[rows], group)
            mask = self._mask(query, window)
            if mask is None and window is not None and group.length > window + 1:
                attended = _sliding(query, key, value, window)
            elif by_bmm:
                attended = _bmm(query, key, value, mask)
            else:
                attended = _sdpa(query, key, value, mask)
            shaped = out[rows].view(group.n_pairs, group.length, *qkv.shape[2:])
            shaped.copy_(attended.transpose(1, 2))
        return out

    def first_token(
        self, qkv: torch.Tensor, batch: TokenBatch, window: int | None = None
    ) -> torch.Tensor:
        """Return the output as `Attention.first_token`."""
        outs = []
        for group in batch.groups:
            rows = slice(group.start, group.start + group.n_pairs * group.length)
            query, key, value = _heads(qkv[rows].float(), group)
            bias = None if self._bias is None else self._bias(group.length)
            if window is None and qkv.dtype == torch.float32:
                block = query[:, :, :_SDPA_QUERIES]
                mask = None if bias is None else bias[:, :_SDPA_QUERIES]
                attended = _sdpa(block, key, value, mask)[:, :, :1]
            else:
                reach = slice(None) if window is None else slice(window + 1)
                mask = None if bias is None else bias[:, :1, reach]
                attended = _bmm(query[:, :, :1], key[:, :, reach], value[:, :, reach], mask)
            outs.append(attended.reshape(group.n_pairs, -1))
        return torch.cat(outs).to(qkv.dtype)

    def _mask(self, query: torch.Tensor, window: int | None) -> torch.Tensor | None:
        """Return what to add to the scores of every query; None where a window has blocks."""
        length = query.shape[2]
        if self._bias is not None:
            return self._bias(length).to(query.dtype)
        if window is None or not window + 1 < length <= _SLIDING_MIN_LENGTH:
            return None
        return _reach(length, window, query.dtype, query.device)


def _heads(rows: torch.Tensor, group: LengthGroup) -> tuple[torch.Tensor, ...]:
    """Return query, key and value of a group's rows, each (pairs, heads, length, head_dim)."""
    shaped = rows.view(group.n_pairs, group.length, *rows.shape[1:])
    return tuple(part.transpose(1, 2) for part in shaped.unbind(2))


def _sdpa(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    # With a mask of three axes torch takes a kernel whose sums depend on the number of pairs.
    mask = None if mask is None else mask[None]
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def _bmm(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attend by two matrix products; one flat batch axis keeps results independent of its size."""
    shape = query.shape
    query, key, value = (part.reshape(-1, part.shape[2], shape[3]) for part in (query, key, value))
    added = query.new_zeros(1, 1, 1) if mask is None else mask
    if len(added) > 1:  # a head's own
        added = added.repeat(shape[0], 1, 1)
    beta = 0 if mask is None else 1
    weights = torch.baddbmm(added, query, key.transpose(1, 2), beta=beta, alpha=shape[3] ** -0.5)
    return torch.bmm(weights.softmax(-1), value).view(shape)


@lru_cache(maxsize=1024)
def _reach(length: int, window: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return (1, queries, keys) to add to the scores: 0 within reach, minus infinity beyond."""
    place = torch.arange(length, device=device)
    beyond = (place[:, None] - place).abs() > window
    return torch.zeros(1, length, length, dtype=dtype, device=device).masked_fill_(
        beyond, float("-inf")
    )


def _sliding(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int
) -> torch.Tensor:
    """Attend in blocks of queries over the keys that they reach, in time linear in length."""
    n_pairs, n_heads, length, head_dim = query.shape
    n_blocks = -(-length // _BLOCK)
    tail = n_blocks * _BLOCK - length
    span = _BLOCK + 2 * window
    queries = F.pad(query, (0, 0, 0, tail)).reshape(-1, n_blocks, _BLOCK, head_dim)
    keys, values = (
        F.pad(part, (0, 0, window, window + tail))
        .reshape(n_pairs * n_heads, -1, head_dim)
        .unfold(1, span, _BLOCK)
        .transpose(2, 3)
        for part in (key, value)
    )
    # The mask is (1, blocks, queries, keys): within reach and inside the text.
    block = torch.arange(n_blocks, device=query.device)[:, None, None] * _BLOCK
    query_at = block + torch.arange(_BLOCK, device=query.device)[:, None]
    key_at = block + torch.arange(span, device=query.device)[None, :] - window
    within = (query_at - key_at).abs() <= window
    inside = (key_at >= 0) & (key_at < length)
    # A query past the end of the text reaches itself, so that no row is without a key.
    mask = ((within & inside) | (query_at == key_at))[None]
    out = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    return out.reshape(n_pairs, n_heads, -1, head_dim)[:, :, :length]
