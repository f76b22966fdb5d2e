"""Workers that live and end together: what one process per device is started by and stopped by."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType

from producer.cluster.local import die_with_parent
from rankmill.devices.choice import EXIT_DEVICE_LOST
from rankmill.settings import CHECKOUT

log = logging.getLogger(__name__)

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_LOOK_S = 0.2


@dataclass(frozen=True)
class WorkerStart:
    """A worker's command and the environment that selects its device."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


def supervise(starts: Sequence[WorkerStart]) -> int:
    """Run workers until we are told to stop or one ends by itself, which ends all.

    One whose device has failed for good ends alone: the others go on with theirs.

    Each signal that stops us is passed on, so that SIGTERM lets every worker finish its shard. A
    worker that died leaves the others no better off for going on: whoever started us, a container's
    restart policy for one, starts all of them anew.

    Returns:
        The exit code of the first worker that ended; never 0 where it ended by itself.
    """
    family = _Family()
    for signum in _FORWARDED:
        signal.signal(signum, family.stop)
    for start in starts:
        family.start(start)
    name, code = family.wait_for_first()
    if family.stop_signal is None:
        log.error("worker %s ended by itself (%d); the others are told to stop", name, code)
        family.stop(signal.SIGTERM, None)
        code = code or 1
    family.wait_for_all()
    return code if code >= 0 else 128 - code


class _Family:
    def __init__(self) -> None:
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._lost: set[str] = set()
        self.stop_signal: int | None = None

    def start(self, start: WorkerStart) -> None:
        child = subprocess.Popen(
            start.command,
            cwd=CHECKOUT,
            env={**os.environ, **start.environment},
            start_new_session=True,  # a terminal's Ctrl-C reaches only us, who pass it on once
            preexec_fn=die_with_parent,
        )
        self._children[start.name] = child
        if self.stop_signal is not None:  # told between two starts
            child.send_signal(self.stop_signal)

    def stop(self, signum: int, frame: FrameType | None) -> None:
        self.stop_signal = signum
        for child in self._children.values():
            child.send_signal(signum)

    def wait_for_first(self) -> tuple[str, int]:
        while True:
            for name, child in self._children.items():
                code = child.poll()
                if code == EXIT_DEVICE_LOST and name not in self._lost:
                    self._lost.add(name)
                    log.error("worker %s ended, as its device has failed", name)
                is_alone = len(self._lost) == len(self._children)
                if code is not None and (name not in self._lost or is_alone):
                    return name, code
            time.sleep(_LOOK_S)

    def wait_for_all(self) -> None:
        for child in self._children.values():
            child.wait()
