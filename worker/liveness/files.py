"""Signs of life that a worker's processes leave on this machine, and who may leave them.

    FOLDER/NAME.worker      of a worker's main process, every few seconds
    FOLDER/PID.CHILD.task   of a child of that process, while it works
    FOLDER/PID.device       of all its children: what their device has failed with

FOLDER belongs to one user alone. Times are of the monotonic clock, which all processes of a machine
share and nobody sets. A sign is renewed in place, so that a full disk does not look like a death.
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

# All of a sign, so that a shorter one leaves nothing of a longer one behind.
_RECORD_BYTES = 1024


@dataclass(frozen=True)
class WorkerSign:
    """What a worker's main process says of itself.

    Attributes:
        ticked_at: when it wrote this.
        turned_at: when its message loop last turned; None where that is not to be judged.
        redis_since: since when Redis has answered each time it was asked; None when it did not.
        redis_at: when Redis answered last.
        device_lost: why its device is given up; such a sign stays when the worker has ended.
    """

    name: str
    process: Process
    ticked_at: float
    turned_at: float | None = None
    redis_since: float | None = None
    redis_at: float | None = None
    device_lost: str | None = None


@dataclass(frozen=True)
class TaskSign:
    """What a child of a worker works on, and when it last got on with it; "" while it waits."""

    process: Process
    doing: str
    beat_at: float


def folder(settings: Settings) -> Path:
    """Where this user's workers leave their signs; it may not be there yet."""
    return Path(settings.runtime or tempfile.gettempdir(), f"rankmill-{os.getuid()}")


def own_folder(settings: Settings) -> Path:
    """`folder`, made where it is missing.

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
    """Raise InputError unless nobody but this user can have written what stands in a folder."""
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise InputError(
            f"{path} is not a folder that only this user writes to; remove it, or set "
            "RANKMILL_RUNTIME to another place"
        )


def worker_path(folder: Path, name: str) -> Path:
    return folder / f"{quote(name, safe='@')}.worker"


def task_path(folder: Path, worker_pid: int, child_pid: int) -> Path:
    return folder / f"{worker_pid}.{child_pid}.task"


def task_paths(folder: Path, worker_pid: int) -> list[Path]:
    """Of all children of a worker, also of those that have died."""
    return sorted(folder.glob(f"{worker_pid}.*.task"))


def device_path(folder: Path, worker_pid: int) -> Path:
    return folder / f"{worker_pid}.device"


def counters_path(folder: Path, worker_pid: int) -> Path:
    """The folder in which a worker's children count, where its metrics are served."""
    return folder / f"{worker_pid}.metrics"


class SignFile:
    """A sign that is written again and again by one process."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)  # of an earlier worker of this name, which may still run
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, sign: WorkerSign | TaskSign) -> None:
        os.pwrite(self._file, json.dumps(asdict(sign)).encode().ljust(_RECORD_BYTES), 0)


def read_worker(path: Path) -> WorkerSign | None:
    """None where there is none, or none yet."""
    found = _read(path)
    return WorkerSign(**found | {"process": Process(**found["process"])}) if found else None


def read_task(path: Path) -> TaskSign | None:
    found = _read(path)
    return TaskSign(**found | {"process": Process(**found["process"])}) if found else None


def _read(path: Path) -> dict[str, Any]:
    for _ in range(3):  # one read while it was being written is not whole
        try:
            text = path.read_text()
        except FileNotFoundError:
            return {}
        try:
            return dict(json.loads(text))
        except ValueError:
            continue
    return {}
