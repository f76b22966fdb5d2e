"""The processes of a worker."""

from __future__ import annotations

from pathlib import Path


def pool_processes(pid: int) -> list[int]:
    """Return the ids of a worker's pool processes; billiard's resource tracker is not one."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [
        child
        for child in map(int, children)
        if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()
    ]
