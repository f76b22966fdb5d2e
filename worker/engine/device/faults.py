"""What an error says about the device: it is full, it has failed, or nothing.

By the names and words of torch and CUDA alone, so that it is the same wherever an error comes up:
c10/cuda/CUDACachingAllocator.cpp ("CUDA out of memory"), c10/cuda/CUDAException.cpp ("CUDA error:
…", since 2.9 as torch.AcceleratorError), c10/core/impl/alloc_cpu.cpp ("DefaultCPUAllocator: …"),
aten/src/ATen/cuda/CUDAContextLight.h and Exceptions.h (CUBLAS_STATUS_…, CUDNN_STATUS_…),
torch/cuda/__init__.py ("No CUDA GPUs are available", "Found no NVIDIA driver", …).
"""

from __future__ import annotations

import re
from typing import Literal

Fault = Literal["memory", "device"]

_MEMORY = (
    "out of memory",
    "outofmemory",
    "cudaerrormemoryallocation",
    "status_alloc_failed",
    "allocation_failed",
    "status_insufficient_resources",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "bad_alloc",
    "bad allocation",
    "could not create a memory object",
    "failed to allocate",
)

# After any of these nothing that the process asks of the device can be trusted: a CUDA error is
# sticky (CUDA C++ Programming Guide, "Error Checking"), and so are failures of the driver.
_DEVICE = (
    "cuda error",
    "cuda driver",
    "cuda unknown error",
    "cuda initialization",
    "cudagetdevicecount",
    "cudnn error",
    "cublas error",
    "triton error [cuda]",
    "device-side assert",
    "illegal memory access",
    "illegal instruction was encountered",
    "unspecified launch failure",
    "no cuda gpus are available",
    "no nvidia driver",
    "nvidia driver on your system is too old",
    "busy or unavailable",
    "fallen off the bus",
    "gpu is lost",
    "ecc error",
    "nvml",
    "not compiled with cuda enabled",
    "invalid device ordinal",
)
_LIBRARY_STATUS = re.compile(
    r"(cublas|cudnn|cusolver|cusparse|cufft|nccl)_?status_"
    r"(execution_failed|internal_error|mapping_error|not_initialized|arch_mismatch|sublibrary)"
)

# What the libraries say of arguments that they do not take, which is the caller's mistake.
_MISTAKE = re.compile(r"status_(invalid_value|not_supported|bad_param|zero_pivot)|out of range in")


def fault_of(error: BaseException) -> Fault | None:
    """What an error, or what it was raised from, says about the device; None for anything else."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        found = _fault_of_one(current)
        if found is not None:
            return found
        current = current.__cause__
    return None


def _fault_of_one(error: BaseException) -> Fault | None:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, DeviceFaultError):
        return "device"
    if isinstance(error, DeviceFullError) or kinds & {"OutOfMemoryError", "MemoryError"}:
        return "memory"
    if not isinstance(error, RuntimeError | AssertionError | OSError | SystemError):
        return None
    said = str(error).lower()
    if any(part in said for part in _MEMORY):
        return "memory"
    if _MISTAKE.search(said):
        return None
    if "AcceleratorError" in kinds or _LIBRARY_STATUS.search(said):
        return "device"
    return "device" if any(part in said for part in _DEVICE) else None


class DeviceFaultError(RuntimeError):
    """The device has failed; this process must not ask anything of it any more."""


class DeviceFullError(RuntimeError):
    """What should fit has no room in the device's memory, for now."""


class ForwardError(RuntimeError):
    """The model's forward failed for a reason that is not the device's: the model's, or a row's.

    Its cause is what the forward raised.
    """


def first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
