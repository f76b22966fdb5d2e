"""The parts of CUDA that an image leaves out at each level, and the reasons.

none    all of CUDA, as its wheels bring it
safe    without files that no library links to or opens while a model scores
small   without triton, and with stubs in place of the libraries that torch links to and that
        scoring never calls; docker/stub.py makes them

`docker/check_cuda.py` proves in an image that each symbol is found, and what a stub answers.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Literal

import stub

Level = Literal["none", "safe", "small"]

_UNOPENED = (
    "nvidia/**/*.a",  # for compilers, as is the bitcode
    "nvidia/**/*.bc",
    "nvidia/**/libcusolverMg*",  # cuSOLVER on several GPUs; torch does not link to it
    "nvidia/**/libnvrtc*.alt*",  # a second build of NVRTC, which a program has to ask for
    "nvidia/**/libnvblas*",  # is preloaded in place of another BLAS
    "nvidia/**/libcufftw*",  # FFTW's interface of cuFFT
    "nvidia/**/libcufile_rdma*",  # for GPUDirect Storage over RDMA
    # Of profilers, which open them through CUPTI or by name.
    *("nvidia/**/libnvperf*", "nvidia/**/libcheckpoint*", "nvidia/**/libpcsamplingutil*"),
    # NVSHMEM's ways to other machines, opened when it starts.
    *("nvidia/nvshmem/lib/nvshmem_bootstrap*", "nvidia/nvshmem/lib/nvshmem_transport*"),
    # triton's profiler and its own tests.
    *("triton/_C/libproton*", "triton/backends/nvidia/lib/cupti", "triton/FileCheck"),
    *("triton/instrumentation", "triton/plugins", "triton/backends/amd/lib"),
)

_UNUSED_WITH_STUBS = (
    # torch.compile's, for RANKMILL_FUSED=on; that also needs a C compiler, which no image has.
    *("triton", "triton-*.dist-info"),
    # cuDNN's libcudnn.so.9 opens all others of it; worker/engine/device switches cuDNN off.
    "nvidia/cudnn/lib/libcudnn_*",
    "nvidia/**/libnvJitLink*",  # only cuSPARSE and cuSOLVER link to it
)

# Each torch library that asks for the functions, and why scoring does not call them.
_STUBS = {
    # libtorch_cuda, in torch.fft alone. FNet is the one model of texts with an FFT.
    "nvidia/**/libcufft.so.*": stub.Answers(error=16),
    # libtorch_cuda names it and asks for no function: its random numbers are made on the device.
    "nvidia/**/libcurand.so.*": stub.Answers(error=203),
    # libtorch_cuda and libtorch_cuda_linalg, for sparse tensors; weights and batches are dense.
    "nvidia/**/libcusparse.so.*": stub.Answers(
        error=10, texts=frozenset({"cusparseGetErrorString"})
    ),
    # libtorch_cuda, for weights with half of their values zero (torch.sparse.SparseSemiStructured).
    "nvidia/**/libcusparseLt.so.*": stub.Answers(error=10),
    # libtorch_cuda and libtorch_python, in torch.distributed; a worker has one GPU.
    "nvidia/**/libnccl.so.*": stub.Answers(
        error=5, texts=frozenset({"ncclGetErrorString", "ncclGetLastError"})
    ),
    # libtorch_nvshmem, in torch.distributed's symmetric memory.
    "nvidia/**/libnvshmem_host.so.*": stub.Answers(
        error=9,
        results={
            "nvshmem_malloc": 0,
            "nvshmem_ptr": 0,
            "nvshmemx_mc_ptr": 0,
            "nvshmemid_init_status": 0,  # not initialized
            "nvshmem_team_n_pes": -1,
        },
    ),
    # libtorch_cuda_linalg, which torch opens at its first torch.linalg call on a GPU.
    "nvidia/**/libcusolver.so.*": stub.Answers(error=9),
    # libtorch_python, in torch.cuda.gds: files read by the GPU itself.
    "nvidia/**/libcufile.so.*": stub.Answers(
        error=5007, results={"cuFileRead": -1, "cuFileWrite": -1}
    ),
}


def apply(packages: Path, level: Level) -> tuple[str, ...]:
    """Put stubs into a folder of site-packages; return the patterns that are to be removed."""
    if level == "none":
        return ()
    if level == "safe":
        return _UNOPENED
    unused = (*_UNOPENED, *_UNUSED_WITH_STUBS)
    gone = {path for pattern in unused for path in packages.glob(pattern)}
    users = {*packages.glob("torch/**/*.so*"), *packages.glob("nvidia/**/*.so*")} - gone
    replaced = [(path, each) for glob, each in _STUBS.items() for path in packages.glob(glob)]
    replaced += [(path, _cudnn(path)) for path in packages.glob("nvidia/**/libcudnn.so.*")]
    for library, answers in replaced:
        n_bytes = library.stat().st_size
        names = stub.replace_by_stub(library, users, answers)
        print(f"{library.name}: {len(names)} functions, {n_bytes >> 20} MiB less")
    return unused


def _cudnn(library: Path) -> stub.Answers:
    """Return the answers of cuDNN, which libtorch_cuda calls for convolutions, RNNs and attention.

    The engine switches all of it off, so that torch has its own kernels for them. torch compares
    the version with that which it was built with.
    """
    real = ctypes.CDLL(str(library))
    version, cudart = int(real.cudnnGetVersion()), int(real.cudnnGetCudartVersion())
    parts = f"{version // 10_000}, {version // 100 % 100}, {version % 100}"
    return stub.Answers(
        error=3000,
        texts=frozenset({"cudnnGetErrorString"}),
        code={
            "cudnnGetVersion": f"size_t cudnnGetVersion(void) {{ return {version}; }}",
            "cudnnGetCudartVersion": f"size_t cudnnGetCudartVersion(void) {{ return {cudart}; }}",
            "cudnnGetProperty": "int cudnnGetProperty(int part, int *value) "
            f"{{ *value = (const int[]){{{parts}}}[part]; return 0; }}",
            "cudnnGetLastErrorString": "void cudnnGetLastErrorString(char *text, size_t size) "
            '{ snprintf(text, size, "%s", REASON); }',
        },
    )
