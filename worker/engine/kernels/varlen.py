"""Attention over packed pairs on CUDA by torch's own flash kernel, one call for all lengths."""

from __future__ import annotations

import inspect
from importlib.util import find_spec
from typing import Any

import torch

from worker.engine.batches.batching import TokenBatch
from worker.engine.batches.segments import Segments
from worker.engine.kernels.attention import GroupedAttention


def has_varlen(device: str, dtype: torch.dtype, head_dim: int) -> bool:
    """Return whether `torch.nn.attention.varlen` (torch 2.10 and later) supports such heads."""
    if torch.device(device).type != "cuda" or dtype == torch.float32:
        return False
    if find_spec("torch.nn.attention.varlen") is None:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0) and head_dim in range(8, 257, 8)


class _Varlen:
    """Torch's `varlen_attn`, in each of its versions.

    Its keyword arguments differ between torch 2.10 and 2.13, so each is passed only if this torch
    has it. `num_splits=1` keeps the order of sums independent of the batch. Some kernels refuse it
    when they are called: cuDNN's in 2.13, all but FA3 in 2.12.
    """

    def __init__(self) -> None:
        from torch.nn.attention.varlen import varlen_attn

        self._attend: Any = varlen_attn
        self.known = frozenset(inspect.signature(varlen_attn).parameters)
        self._options: dict[str, Any] = {"num_splits": 1} if "num_splits" in self.known else {}

    def __call__(self, *arguments: Any, **options: Any) -> torch.Tensor:
        """Call it; if its kernel refuses `num_splits`, drop that from then on."""
        try:
            out: torch.Tensor = self._attend(*arguments, **options, **self._options)
        except RuntimeError as error:
            if "num_splits" not in str(error) or not self._options:
                raise
            self._options = {}
            out = self._attend(*arguments, **options)
        return out


class VarlenAttention:
    """The `Attention` of fp16 and bf16 on CUDA."""

    def __init__(self) -> None:
        self._attend = _Varlen()
        self._grouped = GroupedAttention()

    def every_token(
        self, qkv: torch.Tensor, batch: TokenBatch, window: int | None = None
    ) -> torch.Tensor:
        """Return the output as `Attention.every_token`."""
        if window is not None and "window_size" not in self._attend.known:
            return self._grouped.every_token(qkv, batch, window)
        options = {} if window is None else {"window_size": (window,) * 2}
        longest = batch.max_length
        ends = (batch.starts, batch.starts, longest, longest)
        out = self._attend(*qkv.unbind(1), *ends, **options)
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
        out = self._attend(first, key, value, *ends)
        return out.reshape(batch.n_pairs, -1)


class VarlenCausalAttention:
    """The `CausalAttention` of fp16 and bf16 on CUDA: one call for prefixes and pairs.

    The kernel aligns a segment's last query to its last key, so that its prefix is in its past.
    """

    def __init__(self) -> None:
        self._attend = _Varlen()
        has_window = "window_size" in self._attend.known
        self._causal: dict[str, Any] = (
            {"window_size": (-1, 0)} if has_window else {"is_causal": True}
        )

    def every_token(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments
    ) -> torch.Tensor:
        """Return the output as `CausalAttention.every_token`."""
        longest = max(run.length for run in segments.runs)
        most_keys = max(run.n_keys for run in segments.runs)
        ends = (segments.ends, segments.key_ends, longest, most_keys)
        rows = segments.key_rows
        return self._attended(query, key[rows], value[rows], *ends, **self._causal)

    def last_token(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments
    ) -> torch.Tensor:
        """Return the output as `CausalAttention.last_token`."""
        one_each = torch.arange(len(query) + 1, dtype=torch.int32, device=query.device)
        most_keys = max(run.n_keys for run in segments.pairs)
        ends = (one_each, segments.pair_key_ends, 1, most_keys)
        rows = segments.pair_key_rows
        return self._attended(query, key[rows], value[rows], *ends)

    def _attended(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *ends: Any,
        **options: Any,
    ) -> torch.Tensor:
        """Attend in the dtype of the value; the others come from the rotation in fp32."""
        n_sharing = query.shape[1] // key.shape[1]
        if "enable_gqa" in self._attend.known:
            options["enable_gqa"] = n_sharing > 1
        elif n_sharing > 1:
            key, value = (part.repeat_interleave(n_sharing, dim=1) for part in (key, value))
        dtype = value.dtype
        return self._attend(query.to(dtype), key.to(dtype), value, *ends, **options).flatten(1)
