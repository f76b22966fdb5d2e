"""Which numbers a model computes with on which device, and what `auto` chooses there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch

from worker.engine.kernels.layers import DenseLinear, MakeLinear

Precision = Literal["auto", "fp32", "bf16", "fp16", "int8", "fp8"]
Resolved = Literal["fp32", "bf16", "fp16", "int8", "fp8"]

_DTYPES: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


@dataclass(frozen=True)
class Numerics:
    """What activations, norms and embeddings are held in, and how linear layers multiply."""

    dtype: torch.dtype
    linear: MakeLinear


def resolve_precision(precision: Precision, device: str) -> Resolved:
    """The precision to run in; `auto` is the fastest that keeps 16 bits or more.

    Raises:
        ValueError: the precision is unknown, or the device cannot do it.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision {precision!r} is none of {', '.join(get_args(Precision))}")
    if precision == "auto":
        return _cuda_default(device) if _is_cuda(device) else _cpu_default()
    if precision == "int8" and _is_cuda(device):
        raise ValueError(f"precision int8 is for CPUs; {device} can take bf16 or, on Hopper, fp8")
    if precision == "fp8" and not (_is_cuda(device) and _capability(device) >= (9, 0)):
        raise ValueError(f"precision fp8 needs a Hopper GPU (compute capability 9.0), not {device}")
    return precision


def numerics(precision: Resolved) -> Numerics:
    """How a packed model computes in a precision."""
    if precision in ("int8", "fp8"):
        return _quantized(precision)
    dtype = _DTYPES[precision]
    return Numerics(dtype, partial(DenseLinear, dtype=dtype))


def has_fast_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware (AVX512-BF16 or AMX)."""
    return any(
        getattr(torch.cpu, name, lambda: False)()
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )


def _quantized(precision: Resolved) -> Numerics:
    from worker.engine.kernels.quantized import Fp8Linear, Int8Linear

    if precision == "fp8":
        return Numerics(torch.bfloat16, Fp8Linear)
    return Numerics(torch.bfloat16 if has_fast_bf16() else torch.float32, Int8Linear)


def _cpu_default() -> Resolved:
    return "bf16" if has_fast_bf16() else "fp32"


def _cuda_default(device: str) -> Resolved:
    return "bf16" if _capability(device) >= (8, 0) else "fp16"


def _capability(device: str) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def _is_cuda(device: str) -> bool:
    return torch.device(device).type == "cuda"
