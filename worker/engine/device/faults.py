"""Classify an error: the device is full, the device has failed, or neither.

Only the class and the message of an error count, so that its origin does not matter:
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

# The libraries refuse an argument: the caller's mistake.
_MISTAKE = re.compile(r"status_(invalid_value|not_supported|bad_param|zero_pivot)|out of range in")


def fault_of(error: BaseException) -> Fault | None:
    """Return the fault that an error, or one of its causes, reports; None if it reports none."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        fault = _fault_without_cause(current)
        if fault is not None:
            return fault
        current = current.__cause__
    return None


def _fault_without_cause(error: BaseException) -> Fault | None:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, DeviceFaultError):
        return "device"
    if isinstance(error, DeviceFullError) or kinds & {"OutOfMemoryError", "MemoryError"}:
        return "memory"
    if not isinstance(error, RuntimeError | AssertionError | OSError | SystemError):
        return None
    message = str(error).lower()
    if any(part in message for part in _MEMORY):
        return "memory"
    if _MISTAKE.search(message):
        return None
    if "AcceleratorError" in kinds or _LIBRARY_STATUS.search(message):
        return "device"
    return "device" if any(part in message for part in _DEVICE) else None


class DeviceFaultError(RuntimeError):
    """The device has failed; this process must not use it again."""


class DeviceFullError(RuntimeError):
    """The device's memory is full for now; the work would fit into it when it is free."""


class ForwardError(RuntimeError):
    """The model's forward failed because of the model or of a row, not of the device.

    Its cause is the exception of the forward.
    """


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message; the name of its class if it has none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
