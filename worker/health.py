"""Whether this machine's workers live: `python -m worker.health` ends with 0, or 1 and why not.

A busy worker is healthy, and so is one that waits for Redis; one that hangs is not. It asks nobody
and loads next to nothing. Where several workers run, all of them must be well.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from rankmill.devices.choice import choose
from rankmill.errors import RankmillError
from rankmill.settings import settings
from worker.liveness.files import (
    WorkerSign,
    check_folder,
    folder,
    read_task,
    read_worker,
    task_paths,
)

# The main process ticks every two seconds, whatever else it does.
_LATE_S = 60.0
# Docker and Kubernetes wait 10 s for all of this check; a dead driver answers nobody. To it come
# the start of Python, and a second for the end of the process that asks.
ANSWER_S = 8.0
DRIVER_S = 4.0


def main() -> None:
    found: list[str] = []
    try:
        found = complaints(folder(settings()), settings().stall_s)
        if found and settings().device.startswith("cuda"):
            # A worker that does not start leaves no sign of why.
            choose(settings().device, is_tried=False, limit_s=DRIVER_S)
    except RankmillError as error:
        found.append(str(error))
    print("; ".join(found) or "healthy")
    sys.exit(1 if found else 0)


def complaints(folder: Path, stall_s: float) -> list[str]:
    """What is wrong with which worker that has left its sign in a folder.

    Raises:
        InputError: others may have written what stands there.
    """
    signs = []
    if folder.exists():
        check_folder(folder)
        signs = [read_worker(path) for path in sorted(folder.glob("*.worker"))]
    if not signs:
        return [f"no worker runs here, as {folder} has no sign of one"]
    found = [complaint(folder, sign, stall_s) for sign in signs if sign is not None]
    return [each for each in found if each is not None]


def complaint(folder: Path, worker: WorkerSign, stall_s: float) -> str | None:
    """What is wrong with one worker, None if nothing is."""
    now = time.monotonic()
    if worker.device_lost is not None:
        return f"{worker.name}: its device has failed and is given up: {worker.device_lost}"
    if not worker.process.is_alive:
        return f"{worker.name} has died"
    silent_s = now - worker.ticked_at
    if silent_s > min(_LATE_S, stall_s):
        return f"{worker.name}: its main process has not moved for {silent_s:.0f} s"
    deaf_s = _deaf_s(worker)
    if deaf_s > stall_s:
        return f"{worker.name}: takes no messages for {deaf_s:.0f} s, though Redis answers"
    for task in map(read_task, task_paths(folder, worker.process.pid)):
        if task is None or not task.doing or not task.process.is_alive:
            continue  # one that has died is replaced
        stalled_s = now - task.beat_at
        if stalled_s > stall_s:
            return f"{worker.name}: no progress for {stalled_s:.0f} s with {task.doing}"
    return None


def _deaf_s(worker: WorkerSign) -> float:
    """How long Redis has answered this worker and its message loop has not turned.

    Celery's loop stands still while Redis is away, which is no fault of the worker's.
    """
    if worker.turned_at is None or worker.redis_since is None or worker.redis_at is None:
        return 0.0
    return worker.redis_at - max(worker.turned_at, worker.redis_since)


if __name__ == "__main__":
    main()
