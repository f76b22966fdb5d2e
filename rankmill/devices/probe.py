"""What NVIDIA's driver lets this process use: `python -m rankmill.devices.probe`, JSON on stdout.

A process of its own asks, since CUDA must not be initialised in one that starts others, and a
driver that is broken may never answer. With `--try` each device also computes something.
"""

from __future__ import annotations

import ctypes
import json
import re
import runpy
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_LISTED = re.compile(r"^(GPU|\s+MIG) .*\(UUID: ([^)]+)\)", re.MULTILINE)
_SMI_S = 10.0


def main() -> None:
    facts = {**_torch(), **_driver(), "gpus": _listed()}
    if "--try" in sys.argv and facts["n_visible"] and facts["torch_cuda"]:
        try:
            facts |= _tried()
        except Exception as error:  # a library of CUDA's that is missing, say
            why = f"torch cannot be used: {_line(error)}"
            facts["failures"] = [why] * facts["n_visible"]
    print(json.dumps(facts))


def _torch() -> dict[str, Any]:
    """Its version and the CUDA that it was built for, from the file that torch itself reads."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return {"torch": None, "torch_cuda": None}
    found = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
    return {"torch": found["__version__"], "torch_cuda": found["cuda"]}


def _driver() -> dict[str, Any]:
    """By the driver's own library, which knows CUDA_VISIBLE_DEVICES (CUDA driver API, cuda.h)."""
    found = re.search(r"Kernel Module.*?\s(\d+\.\d+[.\d]*)", _read("/proc/driver/nvidia/version"))
    facts: dict[str, Any] = {"driver": found[1] if found else None, "n_visible": 0}
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return {**facts, "has_library": False}
    facts["has_library"] = True
    number = ctypes.c_int(0)
    if cuda.cuDriverGetVersion(ctypes.byref(number)) == 0:
        facts["driver_cuda"] = f"{number.value // 1000}.{number.value % 1000 // 10}"
    code = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(number))
    if code:
        name = ctypes.c_char_p()
        cuda.cuGetErrorName(code, ctypes.byref(name))
        return {**facts, "failure": f"{(name.value or b'an error').decode()} ({code})"}
    return {**facts, "n_visible": number.value}


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _listed() -> list[list[str]] | None:
    """UUIDs of each GPU of the machine and of its MIG slices; None where they cannot be listed."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    try:
        said = subprocess.run([command, "-L"], capture_output=True, text=True, timeout=_SMI_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return gpus_listed(said.stdout) if said.returncode == 0 else None


def gpus_listed(said: str) -> list[list[str]]:
    """`nvidia-smi -L`: a line a GPU, and below it an indented one for each of its MIG slices."""
    gpus: list[list[str]] = []
    for kind, uuid in _LISTED.findall(said):
        if kind == "GPU":
            gpus.append([uuid])
        elif gpus:
            gpus[-1].append(uuid)
    return gpus


def _tried() -> dict[str, Any]:
    """Names of the devices, and what a small product on each fails with."""
    import torch

    names, failures = [], []
    for n in range(torch.cuda.device_count()):
        try:
            names.append(torch.cuda.get_device_name(n))
            ones = torch.ones(16, 16, device=f"cuda:{n}")
            failures.append(None if float((ones @ ones).sum()) == 4096 else "it computes wrongly")
        except Exception as error:
            names += [f"GPU {n}"] * (n + 1 - len(names))
            failures.append(_line(error))
    return {"names": names, "failures": failures}


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


if __name__ == "__main__":
    main()
