"""Attention over packed pairs on CUDA by torch's own flash kernel, one call for all lengths."""

from __future__ import annotations

import inspect
from importlib.util import find_spec
from typing import Any

import torch

from worker.engine.batches.batching import TokenBatch
from worker.engine.kernels.attention import GroupedAttention


def has_varlen(device: str, dtype: torch.dtype, head_dim: int) -> bool:
    """Return whether `torch.nn.attention.varlen` (torch 2.10 and later) supports such heads."""
    if torch.device(device).type != "cuda" or dtype == torch.float32:
        return False
    if find_spec("torch.nn.attention.varlen") is None:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0) and head_dim in range(8, 257, 8)


class VarlenAttention:
    """The `Attention` of fp16 and bf16 on CUDA.

    Keyword arguments of `varlen_attn` differ between torch 2.10 and 2.13, so each is passed only if
    this torch has it. `num_splits=1` keeps the order of sums independent of the batch. Some kernels
    refuse it when they are called: cuDNN's in 2.13, all but FA3 in 2.12.
    """

    def __init__(self) -> None:
        from torch.nn.attention.varlen import varlen_attn

        known = inspect.signature(varlen_attn).parameters
        self._attend: Any = varlen_attn
        self._options: dict[str, Any] = {"num_splits": 1} if "num_splits" in known else {}
        self._has_window = "window_size" in known
        self._grouped = GroupedAttention()

    def every_token(
        self, qkv: torch.Tensor, batch: TokenBatch, window: int | None = None
    ) -> torch.Tensor:
        """Return the output as `Attention.every_token`."""
        if window is not None and not self._has_window:
            return self._grouped.every_token(qkv, batch, window)
        options = (
            self._options if window is None else self._options | {"window_size": (window,) * 2}
        )
        longest = batch.max_length
        ends = (batch.starts, batch.starts, longest, longest)
        out = self._attended(*qkv.unbind(1), *ends, **options)
        return out.reshape(len(qkv), -1)

    def first_token(
        self, qkv: torch.Tensor, batch: TokenBatch, window: int | None = None
    ) -> torch.Tensor:
        """Return the output as `Attention.first_token`."""
        if window is not None:  # the kernel aligns windows to the last key, not to the first
            return self.every_token(qkv, batch, window)[batch.first_tokens]
        query, key, value = qkv.unbind(1)
        one_each = torch.arange(batch.n_pairs + 1, dtype=torch.int32, device=qkv.device)
        ends = (one_each, batch.starts, 1, batch.max_length)
        first = query[batch.first_tokens]
        out = self._attended(first, key, value, *ends, **self._options)
        return out.reshape(batch.n_pairs, -1)

    def _attended(self, *arguments: Any, **options: Any) -> torch.Tensor:
        """Call torch's attention; if its kernel refuses `num_splits`, drop it from then on."""
        try:
            out: torch.Tensor = self._attend(*arguments, **options)
        except RuntimeError as error:
            if "num_splits" not in str(error) or not options.pop("num_splits", None):
                raise
            self._options = {}
            out = self._attend(*arguments, **options)
        return out
