"""Linear layers in 8 bits, with a scale for each token and each output channel.

A token is quantized by its own largest value, so its result does not depend on other tokens.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from worker.engine.compiled.library import Library, library
from worker.engine.kernels import fused_kernels
from worker.engine.kernels.compiled_linear import COMPILED_ACTIVATIONS
from worker.engine.kernels.layers import Linear, activated

_SMALLEST = 1e-12

# Rows multiplied at a time on CPU: the 32-bit sums are scaled while they are still in cache.
_BLOCK = 256


# A vector of the compiled kernel; its instruction multiplies four int8 at a time.
_LANES, _DEPTH = 16, 4

# The instruction multiplies unsigned by signed numbers, so 128 is added to each input.
_OFFSET = 128


def int8_linear(
    weight: torch.Tensor, bias: torch.Tensor | None, *, activation: str | None = None
) -> Linear:
    """Make a layer in int8: the compiled one where it supports the CPU and the shape."""
    kernels = library()
    if kernels and kernels.has_int8 and weight.shape[1] % _LANES == 0:
        return CompiledInt8Linear(kernels, weight, bias, activation=activation)
    return Int8Linear(weight, bias, activation=activation)


class CompiledInt8Linear:
    """Quantizes, multiplies, scales and applies the activation while a row is in the cache."""

    def __init__(
        self,
        kernels: Library,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        *,
        activation: str | None = None,
    ) -> None:
        self._kernels = kernels
        self._activation = COMPILED_ACTIVATIONS[activation]
        self._n_outputs = n_outputs = len(weight)
        missing = -n_outputs % _LANES
        quantized, scale = _to_int8(F.pad(weight.detach().float(), (0, 0, 0, missing)))
        self._excess = quantized.sum(1, dtype=torch.int32) * _OFFSET
        shaped = quantized.view(-1, _LANES, weight.shape[1] // _DEPTH, _DEPTH)
        self._weight = shaped.transpose(1, 2).contiguous()
        self._scale = scale.flatten()
        own = torch.zeros(n_outputs) if bias is None else bias.detach().float()
        self._bias = F.pad(own, (0, missing))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return (rows, out) for (rows, in)."""
        out = x.new_empty(len(x), len(self._bias))
        self._kernels.call(
            "rankmill_int8_linear",
            x.contiguous(),
            out,
            self._weight,
            self._scale,
            self._bias,
            self._excess,
            *x.shape,
            out.shape[1],
            x.dtype == torch.bfloat16,
            self._activation,
        )
        return out[:, : self._n_outputs]


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
        quantized, scale = to_fp8(weight.detach())
        self._weight = quantized.t()
        self._scale = scale.t().contiguous()
        self._bias = None if bias is None else bias.detach().to(torch.bfloat16)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return (rows, out) for (rows, in)."""
        quantized, scale = fused_kernels.run(to_fp8, x)
        out = torch._scaled_mm(
            quantized,
            self._weight,
            scale_a=scale,
            scale_b=self._scale,
            bias=self._bias,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )
        return activated(out, self._activation)


def _to_int8(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return int8 (rows, columns) and the fp32 scale of each row, (rows, 1)."""
    scale = x.abs().amax(1, keepdim=True).clamp_min(_SMALLEST) / torch.iinfo(torch.int8).max
    return (x / scale).round_().to(torch.int8), scale


def to_fp8(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return float8 e4m3 (rows, columns) and the fp32 scale of each row, (rows, 1)."""
    x = x.float()
    most = torch.finfo(torch.float8_e4m3fn).max
    scale = x.abs().amax(1, keepdim=True).clamp_min(_SMALLEST) / most
    return (x / scale).clamp_(-most, most).to(torch.float8_e4m3fn), scale
