"""Where this machine scores: what was asked for, or one line that says why it cannot be had."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rankmill.errors import InputError

_DEVICE = re.compile(r"auto|cpu|cuda(:(0|[1-9][0-9]{0,2}))?")
# How a worker ends whose device has failed for good; others may go on.
EXIT_DEVICE_LOST = 3

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_LENT = "NVIDIA_VISIBLE_DEVICES"
_CHECKOUT = Path(__file__).resolve().parent.parent

# Importing torch from a cold disk took 25 s; a driver that hangs never answers.
_ASK_S, _TRY_S = 25.0, 120.0

# The oldest driver for each CUDA of torch's wheels, minor version compatibility included: CUDA
# Toolkit Release Notes, "CUDA Toolkit and Minimum Required Driver Version for CUDA Minor Version
# Compatibility" (https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/).
MIN_DRIVERS = {"12": "525.60.13", "13": "580"}

# varlen_attn of 2.12 raises for num_splits, which it lists among its parameters.
_BAD_TORCH = "2.12."


def check_device(text: str) -> str:
    """A device's name as it is given in settings and flags.

    Raises:
        ValueError: it is none.
    """
    if not _DEVICE.fullmatch(text):
        raise ValueError(
            f"{text!r} is no device; give auto, cpu, cuda (every visible GPU) or cuda:N (the N-th "
            "visible one, from 0)"
        )
    return text


@dataclass(frozen=True)
class DriverFacts:
    """What `rankmill.devices.probe` saw.

    Attributes:
        torch_cuda: the CUDA that torch was built for; None if without.
        has_library: libcuda.so.1, which comes with the driver.
        driver: the version of the kernel's module.
        driver_cuda: the newest CUDA that the driver knows.
        failure: what the driver answered instead of a number of devices.
        n_visible: devices that CUDA shows this process.
        gpus: UUIDs of the machine's GPUs, each with its MIG slices'; None if not known.
        names: of the visible devices, where they were tried.
        failures: of each of them, None where it works.
        silence: why there was no answer at all.
    """

    torch: str | None = None
    torch_cuda: str | None = None
    has_library: bool = False
    driver: str | None = None
    driver_cuda: str | None = None
    failure: str | None = None
    n_visible: int = 0
    gpus: Sequence[Sequence[str]] | None = None
    names: Sequence[str] = ()
    failures: Sequence[str | None] = ()
    silence: str | None = None


@dataclass(frozen=True)
class Choice:
    """The devices to score on.

    Attributes:
        gpus: what CUDA_VISIBLE_DEVICES is to be for each of them; empty for the CPU.
        reason: why `auto` came to the CPU, or why not all GPUs are used.
        is_surprising: a GPU seems to be meant, so that the reason must be seen.
    """

    gpus: tuple[str, ...] = ()
    reason: str | None = None
    is_surprising: bool = False


def choose(wanted: str, *, is_tried: bool = True, limit_s: float | None = None) -> Choice:
    """What `wanted` comes to on this machine.

    Args:
        is_tried: let each GPU compute something, which loads torch (in another process).
        limit_s: how long the driver may take to answer.

    Raises:
        InputError: a GPU is wanted and none, or not that one, can be used.
    """
    check_torch()
    if wanted == "cpu":
        return Choice()
    return choice_of(wanted, ask_driver(is_tried=is_tried, limit_s=limit_s), os.environ)


def choice_of(wanted: str, facts: DriverFacts, environ: Mapping[str, str]) -> Choice:
    """`choose`, from what was seen.

    Raises:
        InputError: as there.
    """
    index = int(wanted.partition(":")[2]) if ":" in wanted else None
    why = _why_none(facts, environ)
    gpus = [] if why else _selected(facts, environ)
    broken = _broken(facts, gpus)
    if why is None and not gpus:
        why = f"no device is visible ({_variables(environ)})"
    elif why is None and index is not None and index >= len(gpus):
        seen = f"{len(gpus)} {'is' if len(gpus) == 1 else 'are'} visible"
        why = f"there is no GPU {index}: {seen} ({_variables(environ)})"
    elif why is None and index is not None:
        why = broken.get(gpus[index])
        gpus = [gpus[index]]
    elif why is None and len(broken) == len(gpus):
        why = "; ".join(broken.values())
    if why is None:
        good = tuple(each for each in gpus if index is not None or each not in broken)
        left_out = [] if index is not None else list(broken.values())
        left_out += _unread(environ, len(gpus)) if index is None else []
        return Choice(good, "; ".join(left_out) or None, bool(left_out))
    if wanted != "auto":
        raise InputError(
            f"device {wanted} (RANKMILL_DEVICE or --device): no usable GPU: {why}; with auto or "
            "cpu the CPU scores"
        )
    return Choice((), f"no usable GPU: {why}", _seems_meant(facts, environ))


def check_torch() -> None:
    """
    Raises:
        InputError: this torch is known to be wrong.
    """
    try:
        found = version("torch")
    except PackageNotFoundError:
        return
    if found.startswith(_BAD_TORCH):
        raise InputError(
            f"torch {found} cannot be used: its attention for packed pairs fails; install 2.11, or "
            "2.13 or later"
        )


def ask_driver(*, is_tried: bool, limit_s: float | None = None) -> DriverFacts:
    """Ask in a process of its own, and not for ever."""
    limit_s = limit_s or (_TRY_S if is_tried else _ASK_S)
    command = [sys.executable, "-m", "rankmill.devices.probe", *(["--try"] if is_tried else [])]
    child = subprocess.Popen(
        command,
        cwd=_CHECKOUT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        said, _ = child.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        child.kill()
        try:
            child.communicate(timeout=1)
        except subprocess.TimeoutExpired:
            pass  # it waits in the kernel, where no signal reaches it
        return DriverFacts(silence=f"the NVIDIA driver did not answer within {limit_s:.0f} s")
    try:
        facts: dict[str, Any] = json.loads(said.splitlines()[-1])
    except (ValueError, IndexError):
        return DriverFacts(silence=f"asking the NVIDIA driver failed (exit {child.returncode})")
    return DriverFacts(**facts)


def visible_names(value: str | None) -> list[str] | None:
    """The devices that CUDA_VISIBLE_DEVICES names, in CUDA's own reading; None for all.

    CUDA stops at the first that it does not know, and sees nothing where one is named twice
    (CUDA C++ Programming Guide, "CUDA Environment Variables"; `_parse_visible_devices` of
    torch/cuda/__init__.py).
    """
    if value is None:
        return None
    first = value.strip()[:4]
    names: list[str] = []
    for each in (name.strip() for name in value.split(",")):
        if first in ("GPU-", "MIG-"):
            if not each.startswith(first):
                break
        else:
            number = re.match(r"\+?([0-9]+)", each)
            if number is None:
                break
            each = str(int(number[1]))
        if each in names:
            return []
        names.append(each)
    return names


def device_name(gpu: str) -> str:
    """What a worker on it is called: cuda0, or the beginning of a UUID."""
    if gpu.isdigit():
        return f"cuda{gpu}"
    uuid, *slice_of = gpu.replace("MIG-", "").replace("GPU-", "").split("/")
    return "-".join(["cuda", uuid[:8], *slice_of])


def _why_none(facts: DriverFacts, environ: Mapping[str, str]) -> str | None:
    """Why no GPU can be used at all."""
    if facts.silence is not None:
        return facts.silence
    found = []
    if facts.torch is None:
        found.append("torch is not installed")
    elif facts.torch_cuda is None:
        found.append(f"torch {facts.torch} is built without CUDA")
    needed = (facts.torch_cuda or "").partition(".")[0]
    has = (facts.driver_cuda or "").partition(".")[0]
    if not facts.has_library and facts.driver is None:
        found.append(f"no NVIDIA driver was found ({_variables(environ)})")
    elif not facts.has_library:
        found.append(
            f"the machine has NVIDIA driver {facts.driver}, but its libcuda.so.1 is not here; "
            "start the container with --gpus all"
        )
    elif needed and has and int(has) < int(needed):
        what = f"NVIDIA driver {facts.driver}" if facts.driver else "the NVIDIA driver"
        oldest = MIN_DRIVERS.get(needed)
        wanted = f"driver {oldest} or later" if oldest else "a later driver"
        found.append(
            f"{what} knows CUDA {facts.driver_cuda} and is too old for CUDA {facts.torch_cuda}, "
            f"for which torch {facts.torch} is built: install {wanted}, or a torch for CUDA {has}"
        )
    elif facts.failure and "NO_DEVICE" not in facts.failure:
        found.append(f"the NVIDIA driver failed with {facts.failure}")
    elif not facts.n_visible:
        found.append(f"no device is visible ({_variables(environ)})")
    return "; ".join(found) or None


def _selected(facts: DriverFacts, environ: Mapping[str, str]) -> list[str]:
    """What CUDA_VISIBLE_DEVICES is for each device. A process sees one MIG slice at most."""
    names = visible_names(environ.get(_VISIBLE))
    listed = facts.gpus or []
    has_slices = any(len(gpu) > 1 for gpu in listed)
    if names is None and has_slices:
        return [uuid for gpu in listed for uuid in (gpu[1:] or gpu)]
    if names is None:
        return [str(n) for n in range(facts.n_visible)]
    if not names:
        return []
    if names[0].startswith("MIG-"):
        return names
    if not has_slices:
        return names[: facts.n_visible]
    slices = {str(n): gpu[1:] for n, gpu in enumerate(listed)}
    slices |= {gpu[0]: gpu[1:] for gpu in listed}
    return [uuid for name in names for uuid in (slices.get(name) or [name])]


def _broken(facts: DriverFacts, gpus: Sequence[str]) -> dict[str, str]:
    """Those of the devices that were tried and failed, and with what.

    Slices are not tried but for the first, the only one that a process sees.
    """
    named = zip(gpus, facts.failures, strict=False)
    return {gpu: f"{device_name(gpu)} fails: {why}" for gpu, why in named if why is not None}


def _unread(environ: Mapping[str, str], n_used: int) -> list[str]:
    value = environ.get(_VISIBLE)
    names = [name for name in (value or "").split(",") if name.strip()]
    if len(names) <= n_used:
        return []
    return [f"{_VISIBLE}={value}: CUDA stops at the first device that it does not know"]


def _variables(environ: Mapping[str, str]) -> str:
    stated = [
        f"{name}={environ[name] or '(empty)'}" if name in environ else f"{name} is not set"
        for name in (_VISIBLE, _LENT)
    ]
    return ", ".join(stated)


def _seems_meant(facts: DriverFacts, environ: Mapping[str, str]) -> bool:
    """Whether somebody who sees the CPU at work would be surprised."""
    if visible_names(environ.get(_VISIBLE)) == [] and environ[_VISIBLE].strip() in ("", "-1"):
        return False  # that is how GPUs are hidden on purpose
    nodes = [*Path("/dev").glob("nvidia[0-9]*"), *Path("/dev").glob("nvidiactl")]
    return bool(
        nodes
        or Path("/dev/dxg").exists()  # WSL2's
        or facts.torch_cuda
        or facts.has_library
        or facts.driver
        or facts.silence
        or environ.get(_VISIBLE)
        or environ.get(_LENT, "void") not in ("", "void", "none")
    )
