"""Linear layers in 8 bits, with a scale for each token and each output channel.

A token is quantized by its own largest value, so its result does not depend on other tokens.
"""

from __future__ import annotations

import torch

from worker.engine.kernels.layers import activated

_SMALLEST = 1e-12

# Rows multiplied at a time on CPU: the 32-bit sums are scaled while they are still in cache.
_BLOCK = 256


class Int8Linear:
    """int8 x int8 with 32-bit sums, which are exact in any order. CPUs only."""

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, *, activation: str | None = None
    ) -> None:
        self._activation = activation
        quantized, scale = _to_int8(weight.detach().float())
        self._weight = quantized.t()
        self._scale = scale.t().contiguous()
        self._bias = torch.zeros(1) if bias is None else bias.detach().float()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return (rows, out) for (rows, in)."""
        out = x.new_empty(len(x), self._weight.shape[1])
        for start in range(0, len(x), _BLOCK):
            quantized, scale = _to_int8(x[start : start + _BLOCK].float())
            sums = torch._int_mm(quantized, self._weight).float()
            out[start : start + _BLOCK] = sums.mul_(scale).mul_(self._scale).add_(self._bias)
        return activated(out, self._activation)


class Fp8Linear:
    """float8 e4m3 x e4m3 with one scale for each row, bf16 out. Hopper GPUs and later only."""

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, *, activation: str | None = None
    ) -> None:
        self._activation = activation
        quantized, scale = _to_fp8(weight.detach().float())
        self._weight = quantized.t()
        self._scale = scale.t().contiguous()
        self._bias = None if bias is None else bias.detach().to(torch.bfloat16)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return (rows, out) for (rows, in)."""
        quantized, scale = _to_fp8(x.float())
        out = torch._scaled_mm(
            quantized,
            self._weight,
            scale_a=scale,
            scale_b=self._scale,
            bias=self._bias,
            out_dtype=torch.bfloat16,
        )
        return activated(out, self._activation)


def _to_int8(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return int8 (rows, columns) and the fp32 scale of each row, (rows, 1)."""
    scale = x.abs().amax(1, keepdim=True).clamp_min(_SMALLEST) / torch.iinfo(torch.int8).max
    return (x / scale).round_().to(torch.int8), scale


def _to_fp8(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return float8 e4m3 (rows, columns) and the fp32 scale of each row, (rows, 1)."""
    most = torch.finfo(torch.float8_e4m3fn).max
    scale = x.abs().amax(1, keepdim=True).clamp_min(_SMALLEST) / most
    return (x / scale).clamp_(-most, most).to(torch.float8_e4m3fn), scale
