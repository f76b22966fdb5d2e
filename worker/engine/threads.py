"""As many CPU threads as this process may use cores: more cost a factor of four, measured."""

from __future__ import annotations

import os

import torch


def use_available_cores() -> int:
    """Set torch's thread count from the CPU affinity; called once when a worker process starts."""
    n_threads = n_available_cores()
    torch.set_num_threads(n_threads)
    return n_threads


def n_available_cores() -> int:
    """The cores of the CPU affinity, which knows of `taskset` and of a container's cpuset."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS has no affinity
