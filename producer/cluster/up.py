"""A cluster on this machine until Ctrl-C: Redis, a worker per device, Flower and beat.

Without RANKMILL_BROKER_URL it starts a Redis of its own, on a Unix socket that only this user
reaches. Its data stays in the state folder, so that schedules and jobs are there at the next start.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from producer.cluster.local import (
    Device,
    redis_command,
    running,
    wait_for_redis,
    worker_command,
)
from producer.cluster.supervise import WorkerStart
from rankmill.errors import InputError, RankmillError
from rankmill.ledger.client import connect
from rankmill.ledger.jobs import Ledger
from rankmill.ledger.server import check_server
from rankmill.output import run_notes
from rankmill.settings import settings, with_variables

_POLL_S = 0.2
_READY_S = 120.0
_MOST_SOCKET_BYTES = 107  # unix(7)
_USER = "rankmill"


@dataclass(frozen=True)
class Cluster:
    """A running cluster.

    Attributes:
        folder: the state folder, with Redis's data and the logs.
        flower: the address of Flower; None without it.
        login: user and password of Flower that were made for this start; None for those of the
            settings.
    """

    broker_url: str
    folder: Path
    workers: Sequence[str]
    flower: str | None
    login: str | None
    has_beat: bool


def run_cluster(
    chosen: Sequence[Device],
    flower_port: int | None,
    has_beat: bool,
    ready: Callable[[Cluster], None],
) -> None:
    """Run a cluster until this process is interrupted; its processes end in the reverse order.

    Args:
        chosen: the devices, one worker for each.
        flower_port: Flower's port, 0 for a free one; None for no Flower.
        has_beat: whether schedules run.
        ready: called once, when every worker takes work.

    Raises:
        InputError: another one runs, a port is taken, or there is no Redis to start.
        BrokerUnavailable: the Redis of RANKMILL_BROKER_URL does not answer.
        RankmillError: a process ended by itself; the line quotes its log.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(_state_folder())
        port = None if flower_port is None else _free_port(flower_port)
        broker_url, processes = stack.enter_context(_broker(folder))
        stack.enter_context(with_variables({"RANKMILL_BROKER_URL": broker_url}))
        check_server(connect(settings()))
        workers = Ledger.connect(settings()).workers
        n_wanted = workers.n_live() + len(chosen)
        has_login = settings().flower_basic_auth is not None
        login = None if has_login or port is None else f"{_USER}:{secrets.token_urlsafe(12)}"
        for start in _starts(chosen, port, login, has_beat):
            log = folder / f"{start.name}.log"
            log.unlink(missing_ok=True)
            # The defaults of a profile are variables of this process already.
            plain = {"RANKMILL_PROFILE": "", "RANKMILL_LOG_FORMAT": "text", **start.environment}
            process = stack.enter_context(running(list(start.command), plain, log))
            processes[start.name] = process
        deadline = time.monotonic() + _READY_S
        while workers.n_live() < n_wanted or not _answers(port):
            _check(processes, folder)
            if time.monotonic() > deadline:
                raise RankmillError(f"not ready after {_READY_S:.0f} s; the logs are in {folder}")
            time.sleep(_POLL_S)
        flower = None if port is None else f"http://127.0.0.1:{port}"
        names = [device.name for device in chosen]
        ready(Cluster(broker_url, folder, names, flower, login, has_beat))
        while True:
            _check(processes, folder)
            time.sleep(_POLL_S)


def _starts(
    chosen: Sequence[Device], port: int | None, login: str | None, has_beat: bool
) -> Iterator[WorkerStart]:
    """Yield the processes in the order of their start."""
    metrics_port = settings().metrics_port
    for n, device in enumerate(chosen):
        environment = dict(device.environment)
        if metrics_port:
            environment["RANKMILL_METRICS_PORT"] = str(metrics_port + n)
        yield WorkerStart(f"worker-{device.name}", worker_command(device.name), environment)
    silent = {"RANKMILL_METRICS_PORT": "0"}
    if port is not None:
        logins = {"RANKMILL_FLOWER_BASIC_AUTH": login} if login is not None else {}
        command = [sys.executable, *("-m", "producer.cli", "flower", "--port", str(port))]
        yield WorkerStart("flower", command, {**silent, **logins})
    if has_beat:
        yield WorkerStart("beat", beat_command(), silent)


def beat_command() -> list[str]:
    """Return the command of Celery's beat, to be run in CHECKOUT."""
    return [sys.executable, *("-m", "celery", "--quiet", "-A", "tasks", "beat")]


def has_flower() -> bool:
    """Return whether Flower is installed."""
    return find_spec("flower") is not None


@contextmanager
def _state_folder() -> Iterator[Path]:
    """Hold the folder of this user's cluster, which the next start finds again.

    Raises:
        InputError: another process holds it, or it cannot be made.
    """
    try:
        folder = run_notes.folder().with_name("up")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"no folder for the cluster's state: {error}; set XDG_STATE_HOME"
        ) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.read(lock, 20).decode(errors="replace").strip()
            raise InputError(
                f"rankmill up runs already, process {owner}, with its state in {folder}; stop that "
                "one with Ctrl-C first"
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield folder
    finally:
        os.close(lock)


@contextmanager
def _broker(folder: Path) -> Iterator[tuple[str, dict[str, subprocess.Popen[bytes]]]]:
    """Give the broker of the settings, or that of a Redis that keeps its data in the folder.

    Yields:
        Its URL, and the processes that were started.
    """
    if "broker_url" in settings().model_fields_set:
        yield settings().broker_url, {}
        return
    path = folder / "redis.sock"
    if len(os.fsencode(path)) > _MOST_SOCKET_BYTES:
        raise InputError(f"{path} is too long for a Unix socket; set XDG_STATE_HOME to a short one")
    path.unlink(missing_ok=True)
    log, url = folder / "redis.log", f"redis+socket://{path}"
    log.unlink(missing_ok=True)
    with running(redis_command(path, is_kept=True), {}, log) as process:
        wait_for_redis(url, log)
        yield url, {"redis": process}


def _free_port(wanted: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError as error:
            raise InputError(
                f"--flower-port {wanted}: {error.strerror}; give another, or 0 for a free one"
            ) from None
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int | None) -> bool:
    if port is None:
        return True
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _check(processes: Mapping[str, subprocess.Popen[bytes]], folder: Path) -> None:
    for name, process in processes.items():
        if process.poll() is not None:
            log = folder / f"{name}.log"
            lines = log.read_text(errors="replace").strip().splitlines()
            said = lines[-1] if lines else "its log is empty"
            raise RankmillError(f"{name} ended by itself, and the rest was stopped: {said} ({log})")
