"""Print as JSON what NVIDIA's driver lets this process use: `python -m rankmill.devices.probe`.

It is a process of its own, since CUDA must not be initialised in one that starts others, and a
broken driver may never answer. With `--try` each device also computes something.
"""

from __future__ import annotations

import ctypes
import json
import re
import runpy
import shutil
import subprocess
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import UUID

from rankmill.devices.nvml import read_cards

_LISTED = re.compile(r"^(GPU|\s+MIG) .*\(UUID: ([^)]+)\)", re.MULTILINE)
_SMI_S = 10.0


def main() -> None:
    """Print the fields of `rankmill.devices.driver.DriverFacts` that could be found."""
    facts: dict[str, Any] = {"torch": None, "torch_cuda": None}
    spec = find_spec("torch")
    if spec is not None and spec.origin is not None:  # read, since importing torch takes seconds
        about = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
        facts = {"torch": about["__version__"], "torch_cuda": about["cuda"]}
    facts |= _driver()
    nvml = read_cards()
    facts["cards"], facts["nvml_failure"] = list(map(asdict, nvml.cards)), nvml.failure
    answering = [card for card in nvml.cards if card.failure is None]
    listed = [[card.uuid, *(each.uuid for each in card.slices)] for card in answering]
    facts["gpus"] = listed if nvml.failure is None else _gpus()
    facts["driver"] = facts["driver"] or nvml.driver  # WSL2 has no file of the kernel's module
    if "--try" in sys.argv and facts["n_visible"] and facts["torch_cuda"]:
        try:
            facts |= _compute_on_each()
        except Exception as error:  # for example a library of CUDA's that is missing
            why = f"torch cannot be used: {_first_line(error)}"
            facts["failures"] = [why] * facts["n_visible"]
    print(json.dumps(facts))


def _driver() -> dict[str, Any]:
    """Ask the driver's own library, which knows CUDA_VISIBLE_DEVICES (CUDA driver API, cuda.h)."""
    try:
        about = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        about = ""
    module = re.search(r"Kernel Module.*?\s(\d+\.\d+[.\d]*)", about)
    facts: dict[str, Any] = {"driver": module[1] if module else None, "n_visible": 0}
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
    return {**facts, "n_visible": number.value, "uuids": _uuids(cuda, number.value)}


def _uuids(cuda: ctypes.CDLL, n_visible: int) -> list[str]:
    """Return the UUIDs of the visible devices, of slices their own; empty if not known."""
    found = []
    for n in range(n_visible):
        device, uuid = ctypes.c_int(0), (ctypes.c_ubyte * 16)()
        try:
            code = cuda.cuDeviceGet(ctypes.byref(device), n)
            code = code or cuda.cuDeviceGetUuid_v2(ctypes.byref(uuid), device)
        except AttributeError:  # a driver before CUDA 11.4
            return []
        if code:
            return []
        found.append(str(UUID(bytes=bytes(uuid))))
    return found


def _gpus() -> list[list[str]] | None:
    """Ask nvidia-smi for the UUIDs of GPUs and MIG slices; None if there is no answer."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    try:
        listed = subprocess.run([command, "-L"], capture_output=True, text=True, timeout=_SMI_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return gpus_listed(listed.stdout) if listed.returncode == 0 else None


def gpus_listed(listing: str) -> list[list[str]]:
    """Return the UUIDs in `nvidia-smi -L`: of each GPU, followed by those of its MIG slices."""
    gpus: list[list[str]] = []
    for kind, uuid in _LISTED.findall(listing):
        if kind == "GPU":
            gpus.append([uuid])
        elif gpus:
            gpus[-1].append(uuid)
    return gpus


def _compute_on_each() -> dict[str, Any]:
    """Return the devices' names, and the error of a small product on each or None."""
    import torch

    names, failures = [], []
    for n in range(torch.cuda.device_count()):
        try:
            names.append(torch.cuda.get_device_name(n))
            ones = torch.ones(16, 16, device=f"cuda:{n}")
            failures.append(None if float((ones @ ones).sum()) == 4096 else "it computes wrongly")
        except Exception as error:
            names += [f"GPU {n}"] * (n + 1 - len(names))
            failures.append(_first_line(error))
    return {"names": names, "failures": failures}


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


if __name__ == "__main__":
    main()
