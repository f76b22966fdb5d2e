"""Ask NVIDIA's driver what this machine has, in a process that may crash or hang."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankmill.devices.nvml import Card

_CHECKOUT = Path(__file__).resolve().parents[2]

# Importing torch from a cold disk took 25 s; a driver that hangs never answers.
_ASK_S, _TRY_S = 25.0, 120.0


@dataclass(frozen=True)
class DriverFacts:
    """The answer of `rankmill.devices.probe`.

    Attributes:
        torch_cuda: the CUDA that torch was built for; None if built without.
        has_library: libcuda.so.1, which comes with the driver, can be loaded.
        driver: the version of the kernel's module.
        driver_cuda: the newest CUDA that the driver supports.
        failure: the driver's error instead of a number of devices.
        n_visible: devices that CUDA shows this process.
        uuids: theirs, without GPU- or MIG-, in CUDA's order; empty if the driver is too old.
        gpus: UUIDs of the machine's GPUs, each followed by those of its MIG slices; None if not
            known.
        cards: NVML's description of the machine's GPUs.
        nvml_failure: why NVML describes none.
        names: of the visible devices, if they were tried.
        failures: of each tried device, None if it works.
        silence: why there was no answer at all.
    """

    torch: str | None = None
    torch_cuda: str | None = None
    has_library: bool = False
    driver: str | None = None
    driver_cuda: str | None = None
    failure: str | None = None
    n_visible: int = 0
    uuids: Sequence[str] = ()
    gpus: Sequence[Sequence[str]] | None = None
    cards: Sequence[Card] = ()
    nvml_failure: str | None = None
    names: Sequence[str] = ()
    failures: Sequence[str | None] = ()
    silence: str | None = None


def ask_driver(*, is_tried: bool, limit_s: float | None = None) -> DriverFacts:
    """Run the probe in its own process and return its answer, or why there was none.

    Args:
        is_tried: let each GPU compute something, which loads torch.
        limit_s: seconds to wait; by default 25, or 120 with `is_tried`.
    """
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
        output, _ = child.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        child.kill()
        try:
            child.communicate(timeout=1)
        except subprocess.TimeoutExpired:
            pass  # it waits in the kernel, where no signal reaches it
        return DriverFacts(silence=f"the NVIDIA driver did not answer within {limit_s:.0f} s")
    try:
        facts: dict[str, Any] = json.loads(output.splitlines()[-1])
    except (ValueError, IndexError):
        return DriverFacts(silence=f"asking the NVIDIA driver failed (exit {child.returncode})")
    cards = tuple(map(Card.of, facts.pop("cards", ())))
    return DriverFacts(**facts, cards=cards)
