"""Choose the devices to score on, or say in one line why the wanted one cannot be used."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rankmill.devices.driver import DriverFacts, ask_driver
from rankmill.devices.nvml import Card
from rankmill.devices.visible import (
    VISIBLE,
    card_of,
    device_name,
    visible_names,
    worker_devices,
)
from rankmill.errors import InputError

_DEVICE = re.compile(r"auto|cpu|cuda(:(0|[1-9][0-9]{0,2}))?")
# The exit code of a worker whose device has failed for good; other workers may go on.
EXIT_DEVICE_LOST = 3

_LENT = "NVIDIA_VISIBLE_DEVICES"

# The oldest driver for each CUDA of torch's wheels, minor version compatibility included: CUDA
# Toolkit Release Notes, "CUDA Toolkit and Minimum Required Driver Version for CUDA Minor Version
# Compatibility" (https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/).
MIN_DRIVERS = {"12": "525.60.13", "13": "580"}

# varlen_attn of 2.12 raises for num_splits, which it lists among its parameters.
_BAD_TORCH = "2.12."


def check_device(text: str) -> str:
    """Return a device's name as settings and flags take it.

    Raises:
        ValueError: it is not a device's name.
    """
    if not _DEVICE.fullmatch(text):
        raise ValueError(
            f"{text!r} is not a device; give auto, cpu, cuda (every visible GPU) or cuda:N (the "
            "N-th visible one, from 0)"
        )
    return text


@dataclass(frozen=True)
class Choice:
    """The devices to score on.

    Attributes:
        gpus: CUDA_VISIBLE_DEVICES for the worker of each device; empty for the CPU.
        reason: why `auto` chose the CPU, or why not all GPUs are used.
        is_surprising: a GPU seems to be meant, so that the reason must be shown.
        cards: NVML's description of each of `gpus`; None where it has none.
        about: the driver and its CUDA, or why NVML describes nothing.
    """

    gpus: tuple[str, ...] = ()
    reason: str | None = None
    is_surprising: bool = False
    cards: tuple[Card | None, ...] = ()
    about: str = ""


def choose(wanted: str, *, is_tried: bool = True, limit_s: float | None = None) -> Choice:
    """Return the devices of this machine that `wanted` names.

    Args:
        wanted: auto, cpu, cuda or cuda:N.
        is_tried: let each GPU compute something, which loads torch (in another process).
        limit_s: seconds that the driver may take to answer.

    Raises:
        InputError: a GPU is wanted, and none, or not that one, can be used.
    """
    check_torch()
    if wanted == "cpu":
        return Choice()
    return choice_of(wanted, ask_driver(is_tried=is_tried, limit_s=limit_s), os.environ)


def choice_of(wanted: str, facts: DriverFacts, environ: Mapping[str, str]) -> Choice:
    """Return the devices that `wanted` names on a machine with these facts.

    Raises:
        InputError: as `choose`.
    """
    index = int(wanted.partition(":")[2]) if ":" in wanted else None
    why = _why_none(facts, environ)
    gpus = [] if why else worker_devices(environ, facts.n_visible, facts.gpus or [])
    # Of MIG slices only the first is tried: a process sees no more.
    broken = {
        gpu: f"{device_name(gpu)} fails: {failure}"
        for gpu, failure in zip(gpus, facts.failures, strict=False)
        if failure is not None
    }
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
    if why is None and index is not None:
        return _described(Choice(tuple(gpus)), facts, environ)
    if why is None:
        left_out = list(broken.values())
        if VISIBLE not in environ:
            left_out += [card.failure for card in facts.cards if card.failure is not None]
        value = environ.get(VISIBLE)
        if len([name for name in (value or "").split(",") if name.strip()]) > len(gpus):
            left_out.append(
                f"{VISIBLE}={value}: CUDA stops at the first device that it does not know"
            )
        good = tuple(gpu for gpu in gpus if gpu not in broken)
        chosen = Choice(good, "; ".join(left_out) or None, bool(left_out))
        return _described(chosen, facts, environ)
    if wanted != "auto":
        raise InputError(
            f"device {wanted} (RANKMILL_DEVICE or --device): no usable GPU: {why}; with auto or "
            "cpu the CPU scores"
        )
    return Choice((), f"no usable GPU: {why}", _is_gpu_expected(facts, environ))


def _described(chosen: Choice, facts: DriverFacts, environ: Mapping[str, str]) -> Choice:
    cards = [card_of(gpu, environ, facts.uuids, facts.cards) for gpu in chosen.gpus]
    about = [
        f"driver {facts.driver}" if facts.driver else "",
        f"CUDA {facts.driver_cuda}" if facts.driver_cuda else "",
        f"not described: {facts.nvml_failure}" if facts.nvml_failure else "",
    ]
    return replace(chosen, cards=tuple(cards), about=", ".join(filter(None, about)))


def check_torch() -> None:
    """Refuse a version of torch that scores wrongly or fails.

    Raises:
        InputError: naming the versions that work.
    """
    try:
        installed = version("torch")
    except PackageNotFoundError:
        return
    if installed.startswith(_BAD_TORCH):
        raise InputError(
            f"torch {installed} cannot be used: its attention for packed pairs fails; install "
            "2.11, or 2.13 or later"
        )


def _why_none(facts: DriverFacts, environ: Mapping[str, str]) -> str | None:
    """Return why no GPU of the machine can be used, or None if one may be."""
    if facts.silence is not None:
        return facts.silence
    reasons = []
    if facts.torch is None:
        reasons.append("torch is not installed")
    elif facts.torch_cuda is None:
        reasons.append(f"torch {facts.torch} is built without CUDA")
    needed = (facts.torch_cuda or "").partition(".")[0]
    has = (facts.driver_cuda or "").partition(".")[0]
    if not facts.has_library and facts.driver is None:
        reasons.append(f"no NVIDIA driver was found ({_variables(environ)})")
    elif not facts.has_library:
        reasons.append(
            f"the machine has NVIDIA driver {facts.driver}, but its libcuda.so.1 is not here; "
            "start the container with --gpus all"
        )
    elif needed and has and int(has) < int(needed):
        driver = f"NVIDIA driver {facts.driver}" if facts.driver else "the NVIDIA driver"
        oldest = MIN_DRIVERS.get(needed)
        better = f"driver {oldest} or later" if oldest else "a later driver"
        reasons.append(
            f"{driver} knows CUDA {facts.driver_cuda} and is too old for CUDA {facts.torch_cuda}, "
            f"for which torch {facts.torch} is built: install {better}, or a torch for CUDA {has}"
        )
    elif facts.failure and "NO_DEVICE" not in facts.failure:
        reasons.append(f"the NVIDIA driver failed with {facts.failure}")
    elif not facts.n_visible:
        reasons.append(f"no device is visible ({_variables(environ)})")
    return "; ".join(reasons) or None


def _variables(environ: Mapping[str, str]) -> str:
    values = [
        f"{name}={environ[name] or '(empty)'}" if name in environ else f"{name} is not set"
        for name in (VISIBLE, _LENT)
    ]
    return ", ".join(values)


def _is_gpu_expected(facts: DriverFacts, environ: Mapping[str, str]) -> bool:
    """Return whether a user of this machine would be surprised that the CPU scores."""
    if visible_names(environ.get(VISIBLE)) == [] and environ[VISIBLE].strip() in ("", "-1"):
        return False  # that is how GPUs are hidden on purpose
    nodes = [*Path("/dev").glob("nvidia[0-9]*"), *Path("/dev").glob("nvidiactl")]
    return bool(
        nodes
        or Path("/dev/dxg").exists()  # WSL2's
        or facts.torch_cuda
        or facts.has_library
        or facts.driver
        or facts.silence
        or environ.get(VISIBLE)
        or environ.get(_LENT, "void") not in ("", "void", "none")
    )
