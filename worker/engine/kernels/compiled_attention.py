"""Attention over packed pairs by the compiled kernel, which keeps a head's scores in the cache."""

from __future__ import annotations

import torch

from worker.engine.batches.batching import TokenBatch
from worker.engine.compiled.library import Library, library

_HEAD_STEP, _WIDEST_HEAD = 32, 256


def compiled_attention(device: str, dtype: torch.dtype, head_dim: int) -> CompiledAttention | None:
    """Return the compiled attention; None if it does not support the device, dtype or heads."""
    if torch.device(device).type != "cpu" or head_dim not in range(
        _HEAD_STEP, _WIDEST_HEAD + 1, _HEAD_STEP
    ):
        return None
    kernels = library()
    return CompiledAttention(kernels) if kernels and kernels.has(dtype) else None


class CompiledAttention:
    """The `Attention` of CPUs with AVX-512, in fp32 and bf16."""

    def __init__(self, kernels: Library) -> None:
        self._kernels = kernels

    def every_token(
        self, qkv: torch.Tensor, batch: TokenBatch, window: int | None = None
    ) -> torch.Tensor:
        """Return the output as `Attention.every_token`; rows after the last pair are 0."""
        out = qkv.new_empty(len(qkv), qkv.shape[2] * qkv.shape[3])
        last = batch.groups[-1]
        out[last.start + last.n_pairs * last.length :].zero_()
        return self._attend(qkv, out, batch, window, first_only=False)

    def first_token(
        self, qkv: torch.Tensor, batch: TokenBatch, window: int | None = None
    ) -> torch.Tensor:
        """Return the output as `Attention.first_token`."""
        out = qkv.new_empty(batch.n_pairs, qkv.shape[2] * qkv.shape[3])
        return self._attend(qkv, out, batch, window, first_only=True)

    def _attend(
        self,
        qkv: torch.Tensor,
        out: torch.Tensor,
        batch: TokenBatch,
        window: int | None,
        *,
        first_only: bool,
    ) -> torch.Tensor:
        _, _, n_heads, head_dim = qkv.shape
        self._kernels.call(
            "rankmill_attend",
            qkv.contiguous(),
            out,
            batch.starts,
            batch.n_pairs,
            n_heads,
            head_dim,
            -1 if window is None else window,
            first_only,
            qkv.dtype == torch.bfloat16,
            batch.max_length,
            head_dim**-0.5,
        )
        return out
