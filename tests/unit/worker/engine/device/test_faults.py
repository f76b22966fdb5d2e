"""Errors that mean a full device, errors that mean a failed device, and all others."""

from __future__ import annotations

import errno

import pytest
import torch

from worker.engine.device.faults import Fault, fault_of

FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.10 GiB. GPU 0 has a total …"),
    torch.AcceleratorError("CUDA error: out of memory"),
    MemoryError(),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: you "
        "tried to allocate 16384000000 bytes. Error code 12 (Cannot allocate memory)"
    ),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4096 bytes."),
    RuntimeError("std::bad_alloc"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
]
FAILED = [
    torch.AcceleratorError("CUDA error: device-side assert triggered"),
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCompile with …"),
    torch.AcceleratorError("a message that no version has"),
    RuntimeError("CUDA error: unspecified launch failure"),
    RuntimeError("CUDA error: uncorrectable ECC error encountered"),
    RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable"),
    RuntimeError("CUDA error: no kernel image is available for execution on the device"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
    RuntimeError("No CUDA GPUs are available"),
    RuntimeError("Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU"),
    RuntimeError("The NVIDIA driver on your system is too old (found version 12040)."),
    RuntimeError("CUDA driver initialization failed, you might not have a CUDA gpu."),
    RuntimeError("CUDA driver error: unknown error"),
    RuntimeError("Unexpected error from cudaGetDeviceCount(). Error 802: not yet initialized"),
    RuntimeError("CUDA unknown error - this may be due to an incorrectly set up environment"),
    RuntimeError("Triton Error [CUDA]: an illegal instruction was encountered"),
    RuntimeError("NVML_SUCCESS == r INTERNAL ASSERT FAILED"),
    RuntimeError("Unable to determine the device handle for GPU 0000:3B:00.0: GPU is lost."),
    RuntimeError("GPU has fallen off the bus"),
    AssertionError("Torch not compiled with CUDA enabled"),
]
NEITHER = [
    ValueError("CUDA out of memory"),  # for example a text of the input that an error quotes
    ValueError("bad text"),
    KeyError("CUDA error"),
    IndexError("index out of range in self"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (3x4 and 5x6)"),
    RuntimeError("The size of tensor a (514) must match the size of tensor b (600)"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasLtMatmul`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasSgemm`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
    OSError(errno.ENOENT, "No such file or directory"),
]


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        *((error, "memory") for error in FULL),
        *((error, "device") for error in FAILED),
        *((error, None) for error in NEITHER),
    ],
    ids=str,
)
def test_an_error_is_classified_by_its_class_and_message(
    error: BaseException, fault: Fault | None
) -> None:
    assert fault_of(error) == fault


def test_the_cause_of_an_error_counts_too() -> None:
    for cause in (FULL[0], FAILED[0]):
        error = RuntimeError("the model could not be scored")
        error.__cause__ = cause
        assert fault_of(error) == fault_of(cause)
    circle = RuntimeError("a")
    circle.__cause__ = circle
    assert fault_of(circle) is None
