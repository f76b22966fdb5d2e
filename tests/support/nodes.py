"""Start workers on hosts of their own: with another name, boot id and mounts than this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from producer.cluster.local import running, worker_command
from tests.support.programs import program

_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def missing(folder: Path) -> str:
    """Return the shell command that hides a folder's content, as a mount that failed does."""
    return f"mount -t tmpfs tmpfs '{folder}'"


def read_only(folder: Path) -> str:
    return f"mount --bind '{folder}' '{folder}' && mount -o remount,ro,bind '{folder}'"


def full(folder: Path) -> str:
    """Return the shell command that leaves no room in a folder."""
    return f"mount -t tmpfs -o size=4k tmpfs '{folder}' && head -c 4096 /dev/zero > '{folder}/x'"


@dataclass
class Nodes:
    """Hosts with a worker each; their logs are in `folder`."""

    folder: Path
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    def start(
        self,
        host: str,
        *mounts: str,
        environment: Mapping[str, str] | None = None,
        queues: tuple[str, ...] = (),
    ) -> None:
        """Start a worker on a host where these shell commands have changed the mounts."""
        boot_id = self.folder / f"{host}.boot-id"
        boot_id.write_text(f"{uuid.uuid4()}\n")
        steps = [f"hostname {host}", f"mount --bind '{boot_id}' {_BOOT_ID}", *mounts, 'exec "$@"']
        as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
        command = [
            *(program("unshare"), *as_root, "--mount", "--uts"),
            *("sh", "-c", " && ".join(steps), "sh", *worker_command("worker", queues)),
        ]
        given = {
            "CUDA_VISIBLE_DEVICES": "",
            "RANKMILL_THREADS": "1",
            "RANKMILL_RUNTIME": str(self.folder / f"runtime-{host}"),
            **(environment or {}),
        }
        log = self.folder / f"{host}.log"
        self.workers[host] = self._stack.enter_context(running(command, given, log))

    def log(self, host: str) -> str:
        return (self.folder / f"{host}.log").read_text()

    def kill(self, host: str) -> None:
        self.workers[host].kill()
        self.workers[host].wait()


@contextmanager
def nodes(folder: Path) -> Iterator[Nodes]:
    """Yield no hosts yet; all that were started are stopped at the end of the block."""
    started = Nodes(folder)
    with started._stack:
        yield started
        for worker in started.workers.values():  # all at once, which takes less time
            worker.send_signal(signal.SIGQUIT)
