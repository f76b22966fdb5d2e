"""A libnvidia-ml.so.1 and a libcuda.so.1 with cards that a test describes by variables.

The package nvidia-ml-py loads the first as it loads NVIDIA's own. Signatures and codes are those of
nvml.h and cuda.h.

    TEST_CARDS=8            GPUs; all have 80 GiB, and 20 of them in use
    TEST_SLICES=2           MIG slices of the first GPU
    TEST_FAIL=nvmlName=15   a function and its code; nvmlDeviceGetHandleByIndex_v2:1=15 for one GPU
    TEST_HANG=nvmlName      a function that never returns
    TEST_CUDA=1,0           the order in which CUDA numbers the GPUs
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.programs import program


def build_driver(folder: Path) -> None:
    """Build both libraries into a folder, for LD_LIBRARY_PATH."""
    for name in ("libnvidia-ml", "libcuda"):
        source = Path(__file__).with_name(f"{name}.c")
        target = str(folder / f"{name}.so.1")
        subprocess.run([program("cc"), "-shared", "-fPIC", "-o", target, str(source)], check=True)
