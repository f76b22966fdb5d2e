"""The fastest rate at which this machine multiplies matrices in a dtype, by any library here."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from worker.engine.kernels.precision import Precision

_SIZE_CPU, _SIZE_CUDA = 2048, 8192
_TRIES_CPU, _TRIES_CUDA = 5, 30
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Product = Callable[[], torch.Tensor]


def matmul_peak_flops(precision: Precision, device: str, size: int | None = None) -> float:
    """Return the best FLOP/s, per core-second on CPU, of a large square product in the dtype.

    On CPU it is the best of MKL and oneDNN; for int8 it is oneDNN's with 32-bit sums.

    Args:
        precision: a dtype, or int8.
        device: a device of torch.
        size: of the matrices; by default 2048 on CPU and 8192 on CUDA.
    """
    usual, tries = (_SIZE_CPU, _TRIES_CPU) if device == "cpu" else (_SIZE_CUDA, _TRIES_CUDA)
    size = size or usual
    seconds = _core_seconds if device == "cpu" else _cuda_seconds
    found = products(precision, device, size)
    return 2 * size**3 / min(seconds(product) for product in found for _ in range(tries))


def products(precision: Precision, device: str, size: int) -> list[Product]:
    """Return the ways to multiply one square matrix by another in a dtype, one a library."""
    if precision == "int8":
        quantized = torch.randint(-127, 127, (size, size), dtype=torch.int8)
        return [lambda: torch._int_mm(quantized, quantized.t())]
    left = torch.randn(size, size, device=device).to(_DTYPES[precision])
    plain: list[Product] = [lambda: torch.mm(left, left.t())]
    if device != "cpu" or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return plain
    packed = torch.ops.mkldnn._reorder_linear_weight(left)
    return [
        *plain,
        lambda: torch.ops.mkldnn._linear_pointwise(left, packed, None, "none", [], ""),
    ]


def _core_seconds(product: Product) -> float:
    started = time.process_time()
    product()
    return time.process_time() - started


def _cuda_seconds(product: Product) -> float:
    event: Any = torch.cuda.Event
    start, end = event(enable_timing=True), event(enable_timing=True)
    start.record()
    product()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000
