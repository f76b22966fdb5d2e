"""The CPU cores that this process may use."""

from __future__ import annotations

import os
from pathlib import Path

_PCI = Path("/sys/bus/pci/devices")

# Fewer cores than these could not feed a GPU, however near they are.
_FEWEST_CORES = 4


def n_usable_cores() -> int:
    """Return the number of cores in the CPU affinity, which `taskset` and a cpuset narrow."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS has no affinity


def bind_near(pci_bus_id: str, pci: Path = _PCI) -> int | None:
    """Keep this process, and those that it starts, on the usable cores next to a PCI device.

    Args:
        pci_bus_id: such as 0000:3b:00.0.
        pci: the folder of the kernel's PCI devices.

    Returns:
        How many cores those are; None if nothing was changed, since the cores are not known, are
        all that there are, or are too few.
    """
    if not hasattr(os, "sched_setaffinity"):
        return None
    try:
        near = _cores_listed((pci / pci_bus_id / "local_cpulist").read_text())
        usable = os.sched_getaffinity(0)
        kept = near & usable
        if kept == usable or len(kept) < _FEWEST_CORES:
            return None
        os.sched_setaffinity(0, kept)
    except (OSError, ValueError):
        return None
    return len(kept)


def _cores_listed(text: str) -> set[int]:
    """Return the cores of a list such as 0-3,8-11 (Linux, "cpulist")."""
    cores: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        cores |= set(range(int(first), int(last or first) + 1))
    return cores
