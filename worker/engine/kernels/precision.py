"""Precisions: the dtype and the linear layers of each, and the choice of `auto` on a device."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch

from worker.engine.kernels import fused_kernels
from worker.engine.kernels.layers import MakeLinear, dense_linear

Precision = Literal["auto", "fp32", "bf16", "fp16", "int8", "fp8"]
Resolved = Literal["fp32", "bf16", "fp16", "int8", "fp8"]

_DTYPES: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


@dataclass(frozen=True)
class Numerics:
    """The arithmetic of a precision.

    Attributes:
        dtype: dtype of activations, norms and embeddings.
        linear: makes the linear layers.
    """

    dtype: torch.dtype
    linear: MakeLinear


def resolve_precision(precision: Precision, device: str) -> Resolved:
    """Return the precision to run in; `auto` is the fastest with 16 bits or more.

    Raises:
        ValueError: the precision is unknown, or the device does not support it.
    """
    is_cuda = torch.device(device).type == "cuda"
    if precision not in get_args(Precision):
        raise ValueError(f"precision {precision!r} is none of {', '.join(get_args(Precision))}")
    if precision == "auto":
        if not is_cuda:
            return "bf16" if has_fast_bf16() else "fp32"
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    if precision == "int8" and is_cuda:
        raise ValueError(f"precision int8 is for CPUs; {device} can take bf16 or, on Hopper, fp8")
    if precision == "fp8" and not (is_cuda and torch.cuda.get_device_capability(device) >= (9, 0)):
        raise ValueError(f"precision fp8 needs a Hopper GPU (compute capability 9.0), not {device}")
    if precision == "fp8" and not fused_kernels.is_on(torch.device(device)):
        raise ValueError(
            "precision fp8 needs RANKMILL_FUSED=on, since it is slower than bf16 without it; set "
            "it for the workers, or choose bf16"
        )
    return precision


def numerics(precision: Resolved) -> Numerics:
    """Return the arithmetic of a precision."""
    if precision in ("int8", "fp8"):
        from worker.engine.kernels.quantized import Fp8Linear, int8_linear

        if precision == "fp8":
            return Numerics(torch.bfloat16, Fp8Linear)
        return Numerics(torch.bfloat16 if has_fast_bf16() else torch.float32, int8_linear)
    dtype = _DTYPES[precision]
    return Numerics(dtype, partial(dense_linear, dtype=dtype))


def has_fast_bf16() -> bool:
    """Return whether this CPU multiplies bf16 in hardware (AVX512-BF16 or AMX)."""
    return any(
        getattr(torch.cpu, name, lambda: False)()
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
