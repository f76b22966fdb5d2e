"""Keep the heartbeat files of a worker's processes on this machine, where only their user writes.

    FOLDER/NAME.worker      of a worker's main process, written every few seconds
    FOLDER/PID.CHILD.task   of a child of that process, written while it works
    FOLDER/PID.device       of all its children: the failures of their device
    FOLDER/PID.metrics      of all its children: a folder with their counters

FOLDER belongs to one user alone. Times are of the monotonic clock, which all processes of a machine
share and nobody sets. A file is overwritten in place, so that a full disk does not look like a
death.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rankmill.errors import InputError
from rankmill.process import Process
from rankmill.settings import Settings

# A record fills all of its file, so that a shorter one leaves nothing of a longer one behind.
_RECORD_BYTES = 2048


@dataclass(frozen=True)
class WorkerRecord:
    """The heartbeat of a worker's main process.

    Attributes:
        ticked_at: when it wrote this.
        turned_at: when its message loop last turned; None where that is not to be judged.
        redis_since: since when Redis has answered every time; None when it did not the last time.
        redis_at: when Redis answered last.
        device_lost: why its device is given up; such a record stays when the worker has ended.
        declines: which work it declines, and why; empty if none.
        card: its GPU as NVML describes it; empty without one.
    """

    name: str
    process: Process
    ticked_at: float
    turned_at: float | None = None
    redis_since: float | None = None
    redis_at: float | None = None
    device_lost: str | None = None
    declines: str = ""
    card: str = ""


@dataclass(frozen=True)
class TaskRecord:
    """The heartbeat of a worker's child.

    Attributes:
        doing: its task, or "" while it waits for one.
        beat_at: when it last made progress.
    """

    process: Process
    doing: str
    beat_at: float


def folder(settings: Settings) -> Path:
    """Return the folder of this user's heartbeat files, which may not exist yet."""
    return Path(settings.runtime or tempfile.gettempdir(), f"rankmill-{os.getuid()}")


def own_folder(settings: Settings) -> Path:
    """Return `folder`, made where it is missing.

    Raises:
        InputError: it cannot be made, or others can write to it.
    """
    path = folder(settings)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{path} cannot be made: {error.strerror}; set RANKMILL_RUNTIME to a folder that can "
            "be written to"
        ) from error
    check_folder(path)
    return path


def check_folder(path: Path) -> None:
    """Check that only this user can have written the files of a folder.

    Raises:
        InputError: others can write to it, or it is not a folder.
    """
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise InputError(
            f"{path} is not a folder that only this user writes to; remove it, or set "
            "RANKMILL_RUNTIME to another place"
        )


def worker_path(folder: Path, name: str) -> Path:
    """Return the heartbeat file of a worker's main process."""
    return folder / f"{quote(name, safe='@')}.worker"


def task_path(folder: Path, worker_pid: int, child_pid: int) -> Path:
    """Return the heartbeat file of a worker's child."""
    return folder / f"{worker_pid}.{child_pid}.task"


def task_paths(folder: Path, worker_pid: int) -> list[Path]:
    """Return the heartbeat files of all children of a worker, those of dead ones included."""
    return sorted(folder.glob(f"{worker_pid}.*.task"))


def device_path(folder: Path, worker_pid: int) -> Path:
    """Return the file with the failures of a worker's device."""
    return folder / f"{worker_pid}.device"


def counters_path(folder: Path, worker_pid: int) -> Path:
    """Return the folder of the counters of a worker's children, where its metrics are served."""
    return folder / f"{worker_pid}.metrics"


class RecordFile:
    """A heartbeat file that one process writes again and again."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)  # of an earlier worker of this name, which may still run
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, record: WorkerRecord | TaskRecord) -> None:
        """Put a record in the place of the last one.

        Raises:
            OSError: it cannot be written.
        """
        os.pwrite(self._file, json.dumps(asdict(record)).encode().ljust(_RECORD_BYTES), 0)


def read_worker(path: Path) -> WorkerRecord | None:
    """Return the record of a main process, or None without one."""
    values = _read(path)
    return WorkerRecord(**values | {"process": Process(**values["process"])}) if values else None


def read_task(path: Path) -> TaskRecord | None:
    """Return the record of a child, or None without one."""
    values = _read(path)
    return TaskRecord(**values | {"process": Process(**values["process"])}) if values else None


def _read(path: Path) -> dict[str, Any]:
    for _ in range(3):  # a record that is read while it is written is not whole
        try:
            text = path.read_text()
        except FileNotFoundError:
            return {}
        try:
            return dict(json.loads(text))
        except ValueError:
            continue
    return {}
