"""A process of this machine, identified by its id and its start, since ids are used again."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Process:
    """A process that may have ended.

    Attributes:
        born: its start in the kernel's clock ticks since the machine's start; empty if not known.
    """

    pid: int
    born: str = ""

    @classmethod
    def me(cls) -> Process:
        """Return the calling process."""
        return cls(os.getpid(), _start_ticks(os.getpid()))

    @property
    def is_alive(self) -> bool:
        """Whether it runs; a zombie does not. True if the system does not let us see it."""
        try:
            process = psutil.Process(self.pid)
            if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
                return False
            return not self.born or _start_ticks(self.pid) == self.born
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True


def _start_ticks(pid: int) -> str:
    """Return the start in ticks since boot, which setting the clock does not change."""
    while True:
        booted_at = psutil.boot_time()
        started_at = psutil.Process(pid).create_time()
        if psutil.boot_time() == booted_at:  # else the clock was set meanwhile
            return str(round((started_at - booted_at) * os.sysconf("SC_CLK_TCK")))


def pid_namespace() -> str:
    """Return the namespace, usually a container, of this process's ids; empty if not Linux."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
