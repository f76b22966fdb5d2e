"""The pulse of a worker: its main process's by a thread, a child's by what it gets done.

What cannot be written down is left out: a worker never stops for want of a sign.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from rankmill.errors import RankmillError
from rankmill.logs import get_logger
from rankmill.process import Process
from rankmill.settings import Settings, settings
from worker.liveness.device_record import DeviceRecord
from worker.liveness.files import (
    SignFile,
    TaskSign,
    WorkerSign,
    counters_path,
    device_path,
    own_folder,
    read_task,
    task_path,
    task_paths,
    worker_path,
)

log = get_logger(__name__)

# Much less than any stall, much more than writing costs.
_TICK_S = 2.0
_BEAT_S = 1.0

# Of a reason: a sign has room for so much besides the rest.
_MOST_CHARACTERS = 300


class WorkerPulse:
    """The main process's; any thread may call its methods. Nothing is left before `begin`."""

    def __init__(self) -> None:
        self.sign = WorkerSign("", Process.me(), time.monotonic())
        self._folder: Path | None = None
        self._is_ending = False
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def begin(
        self, name: str, settings: Settings, on_lost: Callable[[], None] = lambda: None
    ) -> None:
        """Leave signs from now on, under the worker's name.

        Args:
            on_lost: called once, by a thread, when the worker's device is given up.
        """
        self.sign = replace(self.sign, name=name)
        try:
            folder = own_folder(settings)
            _sweep(folder)
            file = SignFile(worker_path(folder, name))
            file.write(self.sign)
        except (RankmillError, OSError) as error:
            log.error("no health check of this worker", error=str(error))
            return
        self._folder = folder
        ticking = threading.Thread(target=self._tick, args=(file, folder, on_lost), daemon=True)
        ticking.name = "pulse"
        ticking.start()

    def end(self) -> None:
        """Take the signs away."""
        self._stop.set()
        if self._folder is not None:
            pid = self.sign.process.pid
            if self.sign.device_lost is None:
                _remove(worker_path(self._folder, self.sign.name))
            _remove(device_path(self._folder, pid))
            _remove(counters_path(self._folder, pid))
            for path in task_paths(self._folder, pid):
                _remove(path)

    def loop_turned(self) -> None:
        """Celery's loop, which takes messages, has come round."""
        with self._lock:
            if not self._is_ending:
                self.sign = replace(self.sign, turned_at=time.monotonic())

    def loop_ends(self) -> None:
        """It will not come round again: the worker is being stopped, and ends its work first."""
        with self._lock:
            self._is_ending = True
            self.sign = replace(self.sign, turned_at=None)

    def redis_answered(self) -> None:
        now = time.monotonic()
        with self._lock:
            since = self.sign.redis_since
            since = now if since is None else since
            self.sign = replace(self.sign, redis_since=since, redis_at=now)

    def redis_was_silent(self) -> None:
        with self._lock:
            self.sign = replace(self.sign, redis_since=None)

    def _tick(self, file: SignFile, folder: Path, on_lost: Callable[[], None]) -> None:
        record = DeviceRecord.of_worker(self.sign.process.pid)
        while not self._stop.wait(_TICK_S):
            lost = record.lost
            is_news = lost is not None and self.sign.device_lost is None
            with self._lock:
                self.sign = replace(self.sign, ticked_at=time.monotonic())
                if is_news:
                    self.sign = replace(self.sign, device_lost=str(lost)[:_MOST_CHARACTERS])
            if is_news:
                on_lost()
            try:
                file.write(self.sign)
                _sweep(folder)
            except OSError as error:
                log.warning("no sign of life could be left", error=str(error))


@lru_cache(maxsize=1)
def worker_pulse() -> WorkerPulse:
    """This process's, which is a worker's main one."""
    return WorkerPulse()


def _sweep(folder: Path) -> None:
    """Remove what killed processes have left; that of a main process stays, and accuses it."""
    for path in folder.glob("*.task"):
        task = read_task(path)
        if task is not None and not task.process.is_alive:
            _remove(path)
    for path in (*folder.glob("*.metrics"), *folder.glob("*.device")):
        if path.stem.isdigit() and not Process(int(path.stem)).is_alive:
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


class TaskPulse:
    """The child's: what it works on, and that it gets on with it. `file` is None to leave none."""

    def __init__(self, file: SignFile | None) -> None:
        self._file = file
        self._me = Process.me()
        self._doing = ""
        self._beat_at = 0.0

    @contextmanager
    def at_work(self, doing: str) -> Iterator[None]:
        """Something is being done whose progress `beat` tells; without beats it counts as hung."""
        self._write(doing)
        try:
            yield
        finally:
            self._write("")

    def beat(self) -> None:
        """There is progress; cheap enough to be told of each batch."""
        if self._doing and time.monotonic() - self._beat_at >= _BEAT_S:
            self._write(self._doing)

    @contextmanager
    def breathing(self, doing: str) -> Iterator[None]:
        """Something is being done that cannot tell its progress: it hangs if this process does."""
        done = threading.Event()

        def breathe() -> None:
            while not done.wait(_BEAT_S):
                self.beat()

        thread = threading.Thread(target=breathe, name="breath", daemon=True)
        with self.at_work(doing):
            thread.start()
            try:
                yield
            finally:
                done.set()
                thread.join()

    def _write(self, doing: str) -> None:
        self._doing, self._beat_at = doing, time.monotonic()
        if self._file is None:
            return
        try:
            self._file.write(TaskSign(self._me, doing, self._beat_at))
        except OSError as error:
            log.warning("no sign of life could be left", error=str(error))


@lru_cache(maxsize=1)
def task_pulse() -> TaskPulse:
    """This process's, which is a child of a worker."""
    try:
        return TaskPulse(SignFile(task_path(own_folder(settings()), os.getppid(), os.getpid())))
    except (RankmillError, OSError) as error:
        log.warning("no sign of life could be left", error=str(error))
        return TaskPulse(None)
