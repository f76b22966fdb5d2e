"""Let one `rankmill run` at a time hold an output, and see whether it is alive.

Each start adds a file with the next number in the folder `runs`, so that of two starts one wins.
The newest file names the holder, whose heartbeat rewrites it until the run ends. Handing the job to
a cluster adds a file that has ended.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal

from rankmill import storage
from rankmill.contract.base import Contract, parse
from rankmill.errors import OutputTaken, RankmillError
from rankmill.output import run_notes
from rankmill.output.output import Output
from rankmill.process import Process, pid_namespace

HEARTBEAT_S = 5.0
# A run on another machine counts as gone after this time without a heartbeat.
_EXPIRES_S = 30.0


class LocalRun(Contract):
    """A process that runs an output's job, or did.

    Attributes:
        boot: the id of the machine's start; empty without /proc.
        pid_namespace: the container in which `pid` is valid; empty without /proc.
        pid_started: when the process began, because process ids are reused.
        broker_url: the run's private Redis, reachable on its machine while the run lives.
    """

    kind: Literal["run", "cluster"]
    job_id: str
    host: str
    boot: str
    pid_namespace: str
    pid: int
    pid_started: str
    broker_url: str
    started_at: datetime
    seen_at: datetime
    ended_at: datetime | None = None

    @property
    def is_here(self) -> bool:
        """Whether its process is visible from this one."""
        return bool(self.boot) and (self.boot, self.pid_namespace) == _place()

    @property
    def is_alive(self) -> bool:
        """Whether the process is running: by its id here, by its heartbeat elsewhere."""
        if self.ended_at is not None:
            return False
        if self.is_here:
            return Process(self.pid, self.pid_started).is_alive
        return (datetime.now(UTC) - self.seen_at).total_seconds() < _EXPIRES_S

    @property
    def name(self) -> str:
        """The process and its machine, for messages."""
        return f"rankmill run, process {self.pid} on {self.host}"


def last_run(output: Output) -> LocalRun | None:
    """Return the newest local run of an output; None if there is none or a cluster has the job."""
    newest = _newest(output)
    run = _read(output, newest) if newest is not None else None
    return run if run is not None and run.kind == "run" else None


def check_free(output: Output) -> None:
    """Raise OutputTaken if a live `rankmill run` holds the output."""
    run = last_run(output)
    if run is not None and run.is_alive:
        raise _taken(output, run)


def hand_to_cluster(output: Output, job_id: str) -> None:
    """Record that a cluster has the job now, if a local run had it before."""
    newest = _newest(output)
    if newest is not None:
        note = _this_process("cluster", job_id, "")
        note = note.model_copy(update={"ended_at": note.started_at})
        storage.write_bytes_once(_place_of(output, newest + 1), note.to_json())


class Hold:
    """This process's hold on an output, from `take` to the end of the `with` block."""

    def __init__(self) -> None:
        self._output: Output | None = None
        self._number = -1
        self._run: LocalRun | None = None
        self._lost_to: LocalRun | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="hold", daemon=True)

    def __enter__(self) -> Hold:
        return self

    def take(self, output: Output, job_id: str, broker_url: str) -> None:
        """Become the holder of an output, and start the heartbeat.

        Raises:
            OutputTaken: a live run holds it.
        """
        newest = _newest(output)
        before = _read(output, newest) if newest is not None else None
        if before is not None and (before.is_alive or not _is_silent(output, newest, before)):
            raise _taken(output, before)
        self._run = _this_process("run", job_id, broker_url)
        self._number = 0 if newest is None else newest + 1
        won = storage.write_bytes_once(_place_of(output, self._number), self._run.to_json())
        if not won or _newest(output) != self._number:
            raise _taken(output, last_run(output))
        self._output = output
        self._thread.start()
        run_notes.note(output.uri)

    def check(self) -> None:
        """Raise OutputTaken if another run took this one for dead and took over."""
        if self._lost_to is not None and self._output is not None:
            raise _taken(self._output, self._lost_to)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._output is None:
            return
        self._stop.set()
        self._thread.join()
        try:
            self._write(ended_at=datetime.now(UTC))
        except RankmillError:
            pass  # the process ends in a moment, and others see that too

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            try:
                self._write(seen_at=datetime.now(UTC))
            except RankmillError:
                continue

    def _write(self, **times: datetime) -> None:
        assert self._output is not None and self._run is not None
        newest = _newest(self._output)
        if newest is not None and newest > self._number:
            self._lost_to = _read(self._output, newest) or self._run
            return
        self._run = self._run.model_copy(update=times)
        storage.write_bytes(_place_of(self._output, self._number), self._run.to_json())


def _is_silent(output: Output, number: int | None, run: LocalRun) -> bool:
    """Return whether a run writes no heartbeat; its clock and this one may differ."""
    if run.ended_at is not None or run.is_here or number is None:
        return True
    deadline = time.monotonic() + 2.5 * HEARTBEAT_S
    while time.monotonic() < deadline:
        time.sleep(0.5)
        seen = _read(output, number)
        if seen is not None and seen.seen_at != run.seen_at:
            return seen.ended_at is not None
    return True


def _taken(output: Output, run: LocalRun | None) -> OutputTaken:
    who = run.name if run is not None else "another process"
    return OutputTaken(
        f"{output.uri}: its job is being run ({who}); wait for its end, or rankmill cancel "
        f"{output.uri}"
    )


def _this_process(kind: Literal["run", "cluster"], job_id: str, broker_url: str) -> LocalRun:
    boot, pid_namespace = _place()
    now = datetime.now(UTC)
    return LocalRun(
        kind=kind,
        job_id=job_id,
        host=socket.gethostname(),
        boot=boot,
        pid_namespace=pid_namespace,
        pid=os.getpid(),
        pid_started=Process.me().born,
        broker_url=broker_url,
        started_at=now,
        seen_at=now,
    )


def _newest(output: Output) -> int | None:
    listed = storage.names(output.runs_uri)
    return max(
        (int(name[:-5]) for name in listed if re.fullmatch(r"\d{5,}\.json", name)), default=None
    )


def _read(output: Output, number: int) -> LocalRun | None:
    place = _place_of(output, number)
    content = storage.read_bytes(place)
    return None if content is None else parse(LocalRun, content, place)


def _place_of(output: Output, number: int) -> str:
    return storage.child(output.runs_uri, f"{number:05d}.json")


def _place() -> tuple[str, str]:
    """Return the ids of this machine's start and of this container; empty without /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return boot, pid_namespace()
    except OSError:
        return "", ""
