"""Identify this machine and this worker; two of the same name have different ids."""

from __future__ import annotations

import os
import socket
import uuid
from functools import lru_cache
from pathlib import Path
from typing import Any

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_worker: list[str] = []


@lru_cache(maxsize=1)
def machine_id() -> str:
    """Return an id of the machine since its start; its containers have the same.

    Two machines may have the same name, for example in two networks.
    """
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:  # not Linux
        return f"{uuid.getnode():x}"


def name_worker(sender: str = "", **_: Any) -> None:
    """Note the worker's name (signals `celeryd_init`, `worker_process_init`)."""
    _worker[:] = [sender]


def worker_id() -> str:
    """Return the worker of this process, or the process itself, as "name machine"."""
    name = _worker[0] if _worker else f"{os.getpid()}@{socket.gethostname()}"
    return f"{name} {machine_id()[:8]}"
