"""Linear layers in fp32 and bf16 by the compiled kernel, which also does what follows them."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from worker.engine.compiled.library import Library, library

_LANES, _WIDE = 16, 3  # numbers of a vector, and vectors of a panel
_DEPTH_BYTES = 4  # the kernel multiplies one fp32 or two bf16 at a time

# oneDNN, which also divides the inputs, is up to 1.05 times as fast with larger weights.
_MOST_BYTES = 2**23

# The kernels' number of each activation.
COMPILED_ACTIVATIONS = {
    None: 0,
    "gelu": 1,
    "gelu_new": 2,
    "gelu_pytorch_tanh": 2,
    "silu": 3,
    "swish": 3,
    "tanh": 4,
    "relu": 5,
}

_ALONE, _TIMES, _PLUS = range(3)  # `joint` of linear.c


def linear_kernels(weight: torch.Tensor, dtype: torch.dtype) -> Library | None:
    """Return the kernels, or None if they do not support a layer or are slower than oneDNN.

    Args:
        weight: (out, in).
        dtype: of the layer.
    """
    row_bytes = weight.shape[1] * dtype.itemsize
    if weight.device.type != "cpu" or row_bytes % _DEPTH_BYTES:
        return None
    if len(weight) * row_bytes > _MOST_BYTES:
        return None
    kernels = library()
    return kernels if kernels and kernels.has(dtype) else None


class CompiledLinear:
    """Multiplies, adds the bias and applies the activation while a number is in the cache."""

    def __init__(
        self,
        kernels: Library,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        *,
        dtype: torch.dtype,
        activation: str | None = None,
    ) -> None:
        self._kernels = kernels
        self._activation = COMPILED_ACTIVATIONS[activation]
        self._n_outputs = n_outputs = len(weight)
        missing = -n_outputs % _LANES
        self._weight = _in_panels(F.pad(weight.detach().to(dtype), (0, 0, 0, missing)))
        own = torch.zeros(n_outputs) if bias is None else bias.detach().to(dtype).float()
        self._bias = F.pad(own, (0, missing))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return (rows, out) for (rows, in)."""
        return self._apply(x, None, _ALONE)

    def times(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Return the product of the output and of another tensor, (rows, out)."""
        return self._apply(x, other, _TIMES)

    def plus(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Return the sum of the output and of another tensor, (rows, out)."""
        return self._apply(x, other, _PLUS)

    def _apply(self, x: torch.Tensor, other: torch.Tensor | None, joint: int) -> torch.Tensor:
        n_outputs = len(self._bias)
        if other is not None:
            other = F.pad(other, (0, n_outputs - self._n_outputs)).contiguous()
        out = x.new_empty(len(x), n_outputs)
        self._kernels.call(
            "rankmill_linear",
            x.contiguous(),
            out,
            self._weight,
            self._bias,
            other,
            *x.shape,
            n_outputs,
            x.dtype == torch.bfloat16,
            self._activation,
            joint,
        )
        return out[:, : self._n_outputs]


def _in_panels(weight: torch.Tensor) -> torch.Tensor:
    """Return a weight (out, in) as panels of up to 48 outputs, each (in, out) in 4 bytes."""
    words = weight.contiguous().view(torch.int32)
    return torch.cat([panel.t().flatten() for panel in torch.split(words, _LANES * _WIDE)])
