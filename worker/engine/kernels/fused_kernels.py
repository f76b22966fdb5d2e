"""Element-wise operators of the CUDA path as one kernel each, by torch.compile; off by default.

docs/decisions/fused-kernels.md has the arithmetic. No GPU has measured them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, TypeVar

import torch

Out = TypeVar("Out")

_BACKEND = "inductor"

# The device types whose tensors are computed by the fused kernels.
_fused_devices: set[str] = set()


def fuse_on(*device_types: str) -> None:
    """Use the fused kernels on these types of devices from now on, and on no others.

    Raises:
        ValueError: this host cannot compile them.
    """
    missing = [] if shutil.which("cc") or shutil.which("gcc") else ["a C compiler"]
    if "cuda" in device_types and find_spec("triton") is None:
        missing.append("triton")
    if device_types and missing:
        raise ValueError(f"RANKMILL_FUSED=on needs {' and '.join(missing)}, or set it to off")
    _fused_devices.clear()
    _fused_devices.update(device_types)


def is_on(device: torch.device) -> bool:
    """Return whether the fused kernels are used on a device."""
    return device.type in _fused_devices


def run(function: Callable[..., Out], first: torch.Tensor, *others: Any) -> Out:
    """Call a function of tensors, compiled for all shapes where its first tensor's device is."""
    if not is_on(first.device):
        return function(first, *others)
    compiled: Callable[..., Out] = _compiled(function)
    return compiled(first, *others)


@cache
def _compiled(function: Callable[..., Out]) -> Callable[..., Out]:
    made: Callable[..., Out] = torch.compile(
        function, dynamic=True, fullgraph=True, backend=_BACKEND
    )
    return made
