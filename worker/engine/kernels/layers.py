"""The pieces every packed model is made of: linear layers, norms, activations and heads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import nn
from torch.nn import functional as F

from worker.engine.batches.batching import ROW_STEP, TokenBatch

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
    """Makes the linear layer of a precision."""

    def __call__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, *, activation: str | None = None
    ) -> Linear:
        """From an fp32 weight (out, in) and bias (out,); `activation` is one of ACTIVATIONS."""
        ...


# CPU matrix products of fewer rows or columns than this take kernels (gemv, edge tiles) that sum in
# another order, so that a pair's bits would depend on how many pairs came with it.
_MIN_ROWS = 64
_MIN_COLUMNS = 16

# The name and kind under which oneDNN knows an activation.
_ONEDNN_ACTIVATIONS: dict[str | None, tuple[str, str]] = {
    "gelu": ("gelu", "none"),
    "gelu_new": ("gelu", "tanh"),
    "gelu_pytorch_tanh": ("gelu", "tanh"),
}


class Forward(Protocol):
    """A model as the scorer sees it."""

    def forward(self, batch: TokenBatch) -> torch.Tensor:
        """fp32 logits (pairs,) on the batch's device; for two labels the second's log-odds."""
        ...


class DenseLinear:
    """`x @ weight.T + bias` in the weight's dtype, each row's bits independent of the others."""

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
        self._weight = F.pad(weight.detach().to(dtype), (0, 0, 0, missing)).contiguous()
        self._bias = None if bias is None else F.pad(bias.detach().to(dtype), (0, missing))
        self._activation = activation
        self._is_packed = _can_pack(self._weight)
        self._min_rows = _MIN_ROWS if weight.device.type == "cpu" else 0
        if self._is_packed:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(self._weight)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        missing = -len(x) % ROW_STEP if self._is_packed else max(0, self._min_rows - len(x))
        padded = F.pad(x, (0, 0, 0, missing)) if missing else x
        product = self._packed if self._is_packed else self._plain
        return product(padded)[: len(x), : self._n_outputs]

    def _plain(self, x: torch.Tensor) -> torch.Tensor:
        return activated(F.linear(x, self._weight, self._bias), self._activation)

    def _packed(self, x: torch.Tensor) -> torch.Tensor:
        """The activation within the product where oneDNN has it, before anything is rounded."""
        name, kind = _ONEDNN_ACTIVATIONS.get(self._activation, ("none", ""))
        out = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, name, [], kind)
        return out if name != "none" else activated(out, self._activation)


def activated(x: torch.Tensor, activation: str | None) -> torch.Tensor:
    return x if activation is None else ACTIVATIONS[activation](x)


def _can_pack(weight: torch.Tensor) -> bool:
    """Whether oneDNN takes a weight laid out once as it wants it, not anew for each product.

    These are the operators that torch.compile uses; 1.1 times the plain product on AVX512-BF16.
    """
    if weight.device.type != "cpu" or weight.dtype is not torch.bfloat16:
        return False
    names = ("_is_mkldnn_bf16_supported", "_reorder_linear_weight", "_linear_pointwise")
    if not all(hasattr(torch.ops.mkldnn, name) for name in names):
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # not without AVX512


class Norm:
    """Layer normalisation with the module's own weights."""

    def __init__(self, module: nn.LayerNorm, *, dtype: torch.dtype) -> None:
        self._shape = tuple(module.normalized_shape)
        self._weight = module.weight.detach().to(dtype)
        self._bias = None if module.bias is None else module.bias.detach().to(dtype)
        self._eps = module.eps

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, self._shape, self._weight, self._bias, self._eps)


def exact(weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
    """The `MakeLinear` of fp32: what heads use whatever the precision of the body."""
    return DenseLinear(weight, bias, dtype=torch.float32)


def fused(make: MakeLinear, *modules: nn.Linear, activation: str | None = None) -> Linear:
    """Several layers on the same input as one, their outputs side by side."""
    weight = torch.cat([module.weight.detach() for module in modules])
    biases = [module.bias.detach() for module in modules if module.bias is not None]
    return make(weight, torch.cat(biases) if biases else None, activation=activation)


def single_logit(logits: torch.Tensor) -> torch.Tensor:
    """(n, 1) or (n, 2) to fp32 (n,); of two labels the difference, whose sigmoid is the softmax."""
    logits = logits.float()
    return logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
