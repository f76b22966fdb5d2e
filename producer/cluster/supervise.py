"""The workers of one machine, a process per device, which start and stop together."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType

from producer.cluster.local import die_with_parent
from rankmill import logs
from rankmill.devices.choice import EXIT_DEVICE_LOST
from rankmill.logs import get_logger
from rankmill.settings import CHECKOUT, Settings

log = get_logger(__name__)

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_POLL_S = 0.2


@dataclass(frozen=True)
class WorkerStart:
    """A worker's command and the environment that selects its device."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


def supervise(starts: Sequence[WorkerStart], settings: Settings) -> int:
    """Run workers until a signal stops this process or one of them ends, which stops the others.

    A worker whose device has failed for good ends alone, and the others continue. Signals are
    passed on, so that SIGTERM lets every worker finish its shard. A worker that died stops the
    others too, since only a new start of this process, as by a container's restart policy, can
    replace it.

    Returns:
        The exit code of the first worker that ended; never 0 if it ended by itself.
    """
    logs.set_up(settings)
    family = _Family()
    for signum in _FORWARDED:
        signal.signal(signum, family.stop)
    for start in starts:
        family.start(start)
    name, code = family.wait_for_first()
    if family.stop_signal is None:
        log.error("worker ended by itself, stopping the others", worker=name, exit_code=code)
        family.stop(signal.SIGTERM, None)
        code = code or 1
    family.wait_for_all()
    return code if code >= 0 else 128 - code


class _Family:
    """The worker processes by name."""

    def __init__(self) -> None:
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._lost: set[str] = set()
        self.stop_signal: int | None = None

    def start(self, start: WorkerStart) -> None:
        child = subprocess.Popen(
            start.command,
            cwd=CHECKOUT,
            env={**os.environ, **start.environment},
            start_new_session=True,  # a terminal's Ctrl-C reaches this process, which passes it on
            preexec_fn=die_with_parent,
        )
        self._children[start.name] = child
        if self.stop_signal is not None:  # it came between two starts
            child.send_signal(self.stop_signal)

    def stop(self, signum: int, frame: FrameType | None) -> None:
        self.stop_signal = signum
        for child in self._children.values():
            child.send_signal(signum)

    def wait_for_first(self) -> tuple[str, int]:
        """Return the name and exit code of the first that ended, lost devices aside."""
        while True:
            for name, child in self._children.items():
                code = child.poll()
                if code == EXIT_DEVICE_LOST and name not in self._lost:
                    self._lost.add(name)
                    log.error("worker ended, device failed", worker=name)
                is_last = len(self._lost) == len(self._children)
                if code is not None and (name not in self._lost or is_last):
                    return name, code
            time.sleep(_POLL_S)

    def wait_for_all(self) -> None:
        for child in self._children.values():
            child.wait()
