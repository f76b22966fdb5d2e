"""Other S3 implementations than moto, as processes on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.s3 import SECRET

_READY_S = 30


@contextmanager
def localbucket(folder: Path) -> Iterator[str]:
    """Start LocalBucket, which keeps buckets as folders, and yield its URL."""
    port = _free_port()
    command = [_script("localbucket"), "--port", str(port), str(folder)]
    with _serving(command, port, folder) as url:
        yield url


@contextmanager
def rclone(folder: Path) -> Iterator[str]:
    """Start `rclone serve s3` over a folder of the disk, and yield its URL."""
    port = _free_port()
    command = [_script("rclone"), "serve", "s3", "--addr", f"127.0.0.1:{port}"]
    command += ["--auth-key", f"test,{SECRET}", "--config", os.devnull]
    # At 0s it spins on a core from the first write on.
    command += ["--vfs-cache-mode", "off", "--dir-cache-time", "50ms", str(folder)]
    with _serving(command, port, folder) as url:
        yield url


def _script(name: str) -> str:
    """Return the path of a program that a Python package brings."""
    return str(Path(sys.executable).with_name(name))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def _serving(command: list[str], port: int, folder: Path) -> Iterator[str]:
    folder.mkdir(parents=True, exist_ok=True)
    log = folder.with_suffix(".log")
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output) as server,
    ):
        try:
            _wait(server, port, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(10)


def _wait(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"{server.args} does not answer:\n{log.read_text()}")
