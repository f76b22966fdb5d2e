"""The parts of every packed model: linear layers, norms, activations and logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import nn
from torch.nn import functional as F

from worker.engine.batches.batching import ROW_STEP, TokenBatch
from worker.engine.kernels import fused_kernels
from worker.engine.kernels.compiled_linear import CompiledLinear, linear_kernels
from worker.engine.kernels.compiled_rows import Rows, norm_of_sum, rows_kernels

Activation = Callable[[torch.Tensor], torch.Tensor]
Linear = Callable[[torch.Tensor], torch.Tensor]

ACTIVATIONS: dict[str, Activation] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
}


class MakeLinear(Protocol):
    """Makes the linear layers of a precision."""

    def __call__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, *, activation: str | None = None
    ) -> Linear:
        """Return a linear layer.

        Args:
            weight: (out, in), in fp32 or the dtype of its file.
            bias: (out,), as the weight.
            activation: a key of ACTIVATIONS, applied to the output.
        """
        ...


# CPU matrix products of fewer rows or columns take kernels (gemv, edge tiles) that sum in another
# order. A pair's bits would then depend on the number of pairs in its batch.
_MIN_ROWS = 64
_MIN_COLUMNS = 16

# oneDNN's name and kind of an activation.
_ONEDNN_ACTIVATIONS: dict[str | None, tuple[str, str]] = {
    "gelu": ("gelu", "none"),
    "gelu_new": ("gelu", "tanh"),
    "gelu_pytorch_tanh": ("gelu", "tanh"),
}


class Forward(Protocol):
    """A model on its device, without its tokenizer."""

    def forward(self, batch: TokenBatch) -> torch.Tensor:
        """Return fp32 logits (pairs,) on the batch's device.

        Of two labels it is the log-odds of the second.
        """
        ...


def dense_linear(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    *,
    dtype: torch.dtype,
    activation: str | None = None,
) -> Linear:
    """Make a layer in one dtype: the compiled one where it supports the CPU and the shape."""
    kernels = linear_kernels(weight, dtype)
    if kernels is None:
        return DenseLinear(weight, bias, dtype=dtype, activation=activation)
    return CompiledLinear(kernels, weight, bias, dtype=dtype, activation=activation)


def times(linear: Linear, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return the product of a layer's output and of another tensor, which may be overwritten."""
    if isinstance(linear, CompiledLinear):
        return linear.times(x, other)
    return other.mul_(linear(x))


def plus(linear: Linear, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return the sum of a layer's output and of another tensor."""
    if isinstance(linear, CompiledLinear):
        return linear.plus(x, other)
    return other + linear(x)


class DenseLinear:
    """`x @ weight.T + bias` in one dtype; each row's bits are independent of other rows."""

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        *,
        dtype: torch.dtype,
        activation: str | None = None,
    ) -> None:
        self._n_outputs = len(weight)
        missing = max(0, _MIN_COLUMNS - self._n_outputs)
        self._weight = _padded(weight, dtype, (0, 0, 0, missing))
        self._bias = None if bias is None else _padded(bias, dtype, (0, missing))
        self._activation = activation
        self._is_packed = _can_pack(self._weight)
        self._min_rows = _MIN_ROWS if weight.device.type == "cpu" else 0
        if self._is_packed:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(self._weight)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return (rows, out) for (rows, in)."""
        missing = -len(x) % ROW_STEP if self._is_packed else max(0, self._min_rows - len(x))
        padded = F.pad(x, (0, 0, 0, missing)) if missing else x
        product = self._packed if self._is_packed else self._plain
        return product(padded)[: len(x), : self._n_outputs]

    def _plain(self, x: torch.Tensor) -> torch.Tensor:
        return activated(F.linear(x, self._weight, self._bias), self._activation)

    def _packed(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the activation within the product if oneDNN has it, before it rounds."""
        name, kind = _ONEDNN_ACTIVATIONS.get(self._activation, ("none", ""))
        out = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, name, [], kind)
        return out if name != "none" else activated(out, self._activation)


def _padded(
    weight: torch.Tensor, dtype: torch.dtype, missing: tuple[int, ...] = ()
) -> torch.Tensor:
    """Return a copy with zeros appended, aligned in memory as kernels expect.

    A weight in its file is not aligned, and a product of it may have other bits.
    """
    if any(missing):
        return F.pad(weight.detach().to(dtype), missing)
    return weight.detach().to(dtype, copy=True).contiguous()


def activated(x: torch.Tensor, activation: str | None) -> torch.Tensor:
    """Apply an activation by its name; None applies none."""
    return x if activation is None else ACTIVATIONS[activation](x)


def _can_pack(weight: torch.Tensor) -> bool:
    """Return whether oneDNN can keep a weight in its own layout instead of converting it each time.

    torch.compile uses the same operators. On AVX-512 they are 1.1 times as fast in bf16. In fp32
    they are 2.3 times as fast as MKL on AMD, which F.linear takes.
    """
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.bfloat16):
        return False
    names = ("_is_mkldnn_bf16_supported", "_reorder_linear_weight", "_linear_pointwise")
    if not all(hasattr(torch.ops.mkldnn, name) for name in names):
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # not without AVX512


@dataclass(frozen=True)
class Gated:
    """A feed-forward part whose hidden numbers, activated, are multiplied by those of a gate."""

    hidden: Linear
    gate: Linear
    narrow: Linear

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return (rows, out) for (rows, in)."""
        return self.narrow(self._gated(x))

    def added_to(self, residual: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return the sum of a residual (rows, out) and the output for x."""
        return plus(self.narrow, self._gated(x), residual)

    def _gated(self, x: torch.Tensor) -> torch.Tensor:
        return times(self.gate, x, self.hidden(x))


class Embedding:
    """A table of vectors, of which only the rows that are read are cast to a dtype.

    On a CPU the table stays in the weights' file, so that rows that no text needs take no memory.
    """

    def __init__(self, weight: torch.Tensor, *, dtype: torch.dtype) -> None:
        stays = weight.device.type == "cpu"
        self._table = weight.detach() if stays else weight.detach().to(dtype)

    def __call__(self, ids: torch.Tensor) -> Rows:
        """Return the rows of int32 ids (tokens,)."""
        return Rows(self._table, ids)


class Norm:
    """Layer normalisation with a module's weights in one dtype."""

    def __init__(self, module: nn.LayerNorm, *, dtype: torch.dtype) -> None:
        self._shape = tuple(module.normalized_shape)
        self._eps, self._dtype = module.eps, dtype
        self._weight = _padded(module.weight, dtype)
        self._bias = None if module.bias is None else _padded(module.bias, dtype)
        self._kernels = rows_kernels(self._weight, self._shape[-1])
        if self._kernels is not None:
            self._weight = self._weight.float()
            self._bias = None if self._bias is None else self._bias.float()

    def __call__(self, *sources: torch.Tensor | Rows) -> torch.Tensor:
        """Return (rows, width), the sum of up to three sources normalised by row."""
        return self._normed(sources, keeps_sum=False)[1]

    def with_sum(self, *sources: torch.Tensor | Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the sum of the sources, and the sum normalised by row."""
        total, normed = self._normed(sources, keeps_sum=True)
        assert total is not None
        return total, normed

    def _normed(
        self, sources: Sequence[torch.Tensor | Rows], *, keeps_sum: bool
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        weight, bias, dtype = self._weight, self._bias, self._dtype
        if self._kernels is not None:
            return norm_of_sum(
                self._kernels, sources, weight, bias, self._eps, dtype, keeps_sum=keeps_sum
            )
        tensors = [self._tensor(source) for source in sources]
        if keeps_sum:
            return fused_kernels.run(sum_and_norm, weight, bias, self._eps, *tensors)
        return None, fused_kernels.run(normed_sum, weight, bias, self._eps, *tensors)

    def _tensor(self, source: torch.Tensor | Rows) -> torch.Tensor:
        if isinstance(source, Rows):
            return F.embedding(source.places, source.table).to(self._dtype)
        return source


def sum_and_norm(
    weight: torch.Tensor, bias: torch.Tensor | None, eps: float, *sources: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sum of (rows, width) tensors, and its layer normalisation."""
    total, *others = sources
    for other in others:
        total = total + other
    return total, F.layer_norm(total, weight.shape, weight, bias, eps)


def normed_sum(
    weight: torch.Tensor, bias: torch.Tensor | None, eps: float, *sources: torch.Tensor
) -> torch.Tensor:
    """Return the layer normalisation alone, so that a fused kernel does not write the sum."""
    return sum_and_norm(weight, bias, eps, *sources)[1]


def exact(weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
    """Make a linear layer in fp32, which heads use in every precision of the body."""
    return DenseLinear(weight, bias, dtype=torch.float32)


def fused(make: MakeLinear, *modules: nn.Linear, activation: str | None = None) -> Linear:
    """Return several layers on the same input as one; the outputs are concatenated."""
    weight = modules[0].weight
    if len(modules) > 1:
        weight = torch.cat([module.weight.detach() for module in modules])
    biases = [module.bias.detach() for module in modules if module.bias is not None]
    return make(weight, torch.cat(biases) if biases else None, activation=activation)


def single_logit(logits: torch.Tensor) -> torch.Tensor:
    """Return fp32 (n,) for logits (n, 1) or (n, 2).

    Of two labels it is the difference: its sigmoid is the softmax.
    """
    logits = logits.float()
    return logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
