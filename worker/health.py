"""Check this machine's workers: `python -m worker.health` exits with 0, or 1 and the reason.

A busy worker is healthy, and so is one that waits for Redis or declines work; one that hangs is
not. The check asks no other process and loads next to nothing. Where several workers run, all of
them must be healthy.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from rankmill.devices.choice import choose
from rankmill.errors import RankmillError
from rankmill.settings import settings
from worker.liveness.files import (
    WorkerRecord,
    check_folder,
    folder,
    read_task,
    read_worker,
    task_paths,
)

# The main process ticks every two seconds, whatever else it does.
_LATE_S = 60.0
# Docker and Kubernetes wait 10 s for all of this check. That leaves time for Python to start, for a
# driver that does not answer, and a second to end the process that asks it.
ANSWER_S = 8.0
DRIVER_S = 4.0


def main() -> None:
    """Print `healthy` or what is wrong, on one line, and exit."""
    wrong: list[str] = []
    remarks: list[str] = []
    try:
        remarks = [*declining(folder(settings())), *cards(folder(settings()))]
        wrong = complaints(folder(settings()), settings().stall_s)
        if wrong and settings().device.startswith("cuda"):
            # A worker that does not start writes no file that says why.
            choose(settings().device, is_tried=False, limit_s=DRIVER_S)
    except RankmillError as error:
        wrong.append(str(error))
    print("; ".join(wrong or ["healthy", *remarks]))
    sys.exit(1 if wrong else 0)


def complaints(folder: Path, stall_s: float) -> list[str]:
    """Return what is wrong with the workers whose heartbeat files are in a folder.

    Raises:
        InputError: others may have written these files.
    """
    workers = []
    if folder.exists():
        check_folder(folder)
        workers = [read_worker(path) for path in sorted(folder.glob("*.worker"))]
    if not workers:
        return [f"no worker runs here: {folder} has no heartbeat of one"]
    wrong = [complaint(folder, worker, stall_s) for worker in workers if worker is not None]
    return [each for each in wrong if each is not None]


def declining(folder: Path) -> list[str]:
    """Return which workers decline work, and why; a restart would not help them."""
    workers = filter(None, map(read_worker, sorted(folder.glob("*.worker"))))
    return [f"{each.name} declines: {each.declines}" for each in workers if each.declines]


def cards(folder: Path) -> list[str]:
    """Return the GPU of each worker that has one, as its own watch has seen it."""
    workers = filter(None, map(read_worker, sorted(folder.glob("*.worker"))))
    return [f"{each.name}: {each.card}" for each in workers if each.card]


def complaint(folder: Path, worker: WorkerRecord, stall_s: float) -> str | None:
    """Return what is wrong with one worker, or None if nothing is."""
    now = time.monotonic()
    if worker.device_lost is not None:
        return f"{worker.name}: its device has failed and is given up: {worker.device_lost}"
    if not worker.process.is_alive:
        return f"{worker.name} has died"
    silent_s = now - worker.ticked_at
    if silent_s > min(_LATE_S, stall_s):
        return f"{worker.name}: its main process has not moved for {silent_s:.0f} s"
    # Celery's loop waits while Redis is away, so only the time in which Redis has answered counts.
    turned_at, redis_since, redis_at = worker.turned_at, worker.redis_since, worker.redis_at
    if turned_at is not None and redis_since is not None and redis_at is not None:
        deaf_s = redis_at - max(turned_at, redis_since)
        if deaf_s > stall_s:
            return f"{worker.name}: takes no messages for {deaf_s:.0f} s, though Redis answers"
    for task in map(read_task, task_paths(folder, worker.process.pid)):
        if task is None or not task.doing or not task.process.is_alive:
            continue  # one that has died is replaced
        stalled_s = now - task.beat_at
        if stalled_s > stall_s:
            return f"{worker.name}: no progress for {stalled_s:.0f} s with {task.doing}"
    return None


if __name__ == "__main__":
    main()
