"""Write a worker's heartbeats: the main process's from a thread, a child's from its progress.

A heartbeat that cannot be written is logged and left out; a worker never stops for it.
"""

from __future__ import annotations

import math
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
    RecordFile,
    TaskRecord,
    WorkerRecord,
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

# A record has room for three texts of this length besides the rest.
_MAX_REASON_CHARS = 300


class WorkerHeartbeat:
    """The heartbeat of a worker's main process, written from `start` to `stop`.

    Any thread may call its methods.

    Attributes:
        record: what is written next.
        reasons: returns why the worker declines work; empty if it does not.
        card: returns a description of its GPU; empty without one.
    """

    def __init__(self) -> None:
        self.record = WorkerRecord("", Process.me(), time.monotonic())
        self.reasons: Callable[[], list[str]] = list
        self.card: Callable[[], str] = str
        self._folder: Path | None = None
        self._is_stopping = False
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def start(
        self, name: str, settings: Settings, on_lost: Callable[[], None] = lambda: None
    ) -> None:
        """Write heartbeats from now on, every two seconds, from a thread.

        Args:
            name: the worker's name.
            settings: where the files are.
            on_lost: called once, by the thread, when the worker's device is given up.
        """
        self.record = replace(self.record, name=name)
        try:
            folder = own_folder(settings)
            _remove_own(folder, self.record.process.pid)  # a container's ids are the same again
            _sweep(folder)
            file = RecordFile(worker_path(folder, name))
            file.write(self.record)
        except (RankmillError, OSError) as error:
            log.error("health check of this worker is not possible", error=str(error))
            return
        self._folder = folder
        threading.Thread(
            target=self._tick, args=(file, folder, on_lost), name="heartbeat", daemon=True
        ).start()

    def stop(self) -> None:
        """Remove the files of the worker and its children."""
        self._stop.set()
        if self._folder is not None:
            if self.record.device_lost is None:
                _remove(worker_path(self._folder, self.record.name))
            _remove_own(self._folder, self.record.process.pid)

    def loop_turned(self) -> None:
        """Note that Celery's loop, which takes messages, has come round."""
        with self._lock:
            if not self._is_stopping:
                self.record = replace(self.record, turned_at=time.monotonic())

    def loop_stopping(self) -> None:
        """Note that the loop will not come round again: the worker ends its work and stops."""
        with self._lock:
            self._is_stopping = True
            self.record = replace(self.record, turned_at=None)

    def redis_answered(self) -> None:
        """Note that Redis has answered a request."""
        now = time.monotonic()
        with self._lock:
            since = self.record.redis_since
            since = now if since is None else since
            self.record = replace(self.record, redis_since=since, redis_at=now)

    def redis_failed(self) -> None:
        """Note that Redis has not answered a request."""
        with self._lock:
            self.record = replace(self.record, redis_since=None)

    def _tick(self, file: RecordFile, folder: Path, on_lost: Callable[[], None]) -> None:
        device = DeviceRecord.of_worker(self.record.process.pid)
        while not self._stop.wait(_TICK_S):
            lost = device.lost
            is_news = lost is not None and self.record.device_lost is None
            with self._lock:
                declines, card = _short("; ".join(self.reasons())), _short(self.card())
                now = time.monotonic()
                self.record = replace(self.record, ticked_at=now, declines=declines, card=card)
                if is_news:
                    reason = _short(str(lost))
                    self.record = replace(self.record, device_lost=reason)
            if is_news:
                on_lost()
            try:
                file.write(self.record)
                _sweep(folder)
            except OSError as error:
                log.warning("heartbeat not written", error=str(error))


@lru_cache(maxsize=1)
def worker_heartbeat() -> WorkerHeartbeat:
    """Return the heartbeat of this process, which is a worker's main one."""
    return WorkerHeartbeat()


def _short(reason: str) -> str:
    """Return a reason cut to fit a record, as ASCII: JSON needs six bytes for other characters."""
    return reason[:_MAX_REASON_CHARS].encode("ascii", "replace").decode()


def _sweep(folder: Path) -> None:
    """Remove the files of dead processes, but not a main process's: the health check reports it."""
    for path in folder.glob("*.task"):
        task, child = read_task(path), path.stem.rpartition(".")[2]
        # A child that ended before its first task has written nothing.
        process = task.process if task else Process(int(child)) if child.isdecimal() else None
        if process is not None and not process.is_alive:
            _remove(path)
    for path in (*folder.glob("*.metrics"), *folder.glob("*.device")):
        if path.stem.isdecimal() and not Process(int(path.stem)).is_alive:
            _remove(path)


def _remove_own(folder: Path, pid: int) -> None:
    """Remove the files that a worker's children share or have left."""
    for path in (device_path(folder, pid), counters_path(folder, pid), *task_paths(folder, pid)):
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


class TaskHeartbeat:
    """The heartbeat of a worker's child: its task, and when it last made progress."""

    def __init__(self, path: Path | None) -> None:
        """Write to the file at `path`, which the first task makes, or nothing for None."""
        self._path = path
        self._file: RecordFile | None = None
        self._me = Process.me()
        self._doing = ""
        self._beat_at = 0.0

    @contextmanager
    def at_work(self, doing: str) -> Iterator[None]:
        """Note a task that calls `beat` for its progress; without beats it counts as hung."""
        self._write(doing)
        try:
            yield
        finally:
            self._write("")

    def beat(self) -> None:
        """Note progress; cheap enough to be called for each batch."""
        if self._doing and time.monotonic() - self._beat_at >= _BEAT_S:
            self._write(self._doing)

    @contextmanager
    def beating(self, doing: str) -> Iterator[None]:
        """Note a task that cannot report progress; a thread beats until the process hangs."""
        with self.at_work(doing), self.beat_in_background():
            yield

    @contextmanager
    def beat_in_background(self, max_s: float = math.inf) -> Iterator[None]:
        """Beat from a thread during this block, for at most `max_s` seconds."""
        done, until = threading.Event(), time.monotonic() + max_s

        def beat_on() -> None:
            while not done.wait(_BEAT_S) and time.monotonic() < until:
                self.beat()

        thread = threading.Thread(target=beat_on, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _write(self, doing: str) -> None:
        self._doing, self._beat_at = doing, time.monotonic()
        if self._path is None:
            return
        try:
            self._file = self._file or RecordFile(self._path)
            self._file.write(TaskRecord(self._me, doing, self._beat_at))
        except OSError as error:
            log.warning("heartbeat not written", error=str(error))


@lru_cache(maxsize=1)
def task_heartbeat() -> TaskHeartbeat:
    """Return the heartbeat of this process, which is a worker's child.

    Other processes load models, too; they have no task, and so leave no file.
    """
    try:
        return TaskHeartbeat(task_path(own_folder(settings()), os.getppid(), os.getpid()))
    except RankmillError as error:
        log.warning("heartbeat not written", error=str(error))
        return TaskHeartbeat(None)
