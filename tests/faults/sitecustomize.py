"""Make a process fail in a chosen way, if this folder is on its PYTHONPATH.

RANKMILL_TEST_DEADLY_TEXT: a document with this text kills the process that scores it, as a
tokenizer that crashes or a row that takes all memory would.
RANKMILL_TEST_DRIVER: JSON of DriverFacts, what NVIDIA's driver seems to say.
RANKMILL_TEST_CUDA_BREAKS: how a device fails: `always`; a file, once it is there, which is removed;
or text:… at documents with this text.
RANKMILL_TEST_FAILING_CALL=fsync:7: every seventh such call on an output file fails with EIO.
RANKMILL_TEST_SLOW_LOAD_S: seconds that loading a model takes longer.
RANKMILL_TEST_CLOCK_AHEAD_S: the wall clock is this much ahead.
RANKMILL_TEST_CLOCK: a file that says what time it is for schedules, as "1790000000 1793000000 9":
when Redis's clock shows the first, it is the second, and time passes so many times as fast.
"""

from __future__ import annotations

import errno
import importlib.abc
import importlib.machinery
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

_FAILING = os.environ.get("RANKMILL_TEST_FAILING_CALL")
_AHEAD_S = float(os.environ.get("RANKMILL_TEST_CLOCK_AHEAD_S", "0"))
_DEADLY = os.environ.get("RANKMILL_TEST_DEADLY_TEXT")
_CLOCK = os.environ.get("RANKMILL_TEST_CLOCK")
_BREAKS = os.environ.get("RANKMILL_TEST_CUDA_BREAKS")
_SLOW_LOAD_S = float(os.environ.get("RANKMILL_TEST_SLOW_LOAD_S", "0"))
_DRIVER = os.environ.get("RANKMILL_TEST_DRIVER")


class _ChangingLoader(importlib.abc.Loader):
    """Loads a module and then changes it."""

    def __init__(self, loader: Any, change: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._change = change

    def create_module(self, spec: Any) -> ModuleType | None:
        created: ModuleType | None = self._loader.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._change(module)


def _kill_at_deadly_text(scorer: ModuleType) -> None:
    score = scorer.Scorer.score

    def score_or_die(self: Any, windows: Any) -> Any:
        def watched() -> Any:
            for window in windows:
                if any(_DEADLY in text for text in window.documents):
                    os.kill(os.getpid(), signal.SIGKILL)
                yield window

        return score(self, watched())

    scorer.Scorer.score = score_or_die


def _break_device(runner: ModuleType) -> None:
    """Fail as CUDA does, and go on failing: such an error is sticky."""
    is_lost = [_BREAKS == "always"]
    launch = runner._CpuRun.__init__

    def launch_or_fail(self: Any, *arguments: Any) -> None:
        trigger = Path(str(_BREAKS))
        if not is_lost[0] and trigger.is_file():
            trigger.unlink()
            is_lost[0] = True
        if is_lost[0]:
            import torch

            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        launch(self, *arguments)

    runner._CpuRun.__init__ = launch_or_fail


def _break_device_at_text(scorer: ModuleType) -> None:
    text, score = str(_BREAKS).removeprefix("text:"), scorer.Scorer.score

    def score_or_fail(self: Any, windows: Any) -> Any:
        for window in windows:
            if any(text in document for document in window.documents):
                raise scorer.DeviceFaultError("CUDA error: device-side assert triggered")
            yield from score(self, [window])

    scorer.Scorer.score = score_or_fail


def _load_slowly(scorer: ModuleType) -> None:
    load = scorer.Scorer.load

    def load_late(*arguments: Any, **options: Any) -> Any:
        time.sleep(_SLOW_LOAD_S)
        return load(*arguments, **options)

    scorer.Scorer.load = load_late


def _answer_as_driver(devices: ModuleType) -> None:
    devices.ask_driver = lambda **_: devices.DriverFacts(**json.loads(str(_DRIVER)))


def _hurry(clock: ModuleType) -> None:
    def now(ledger: Any) -> datetime:
        real, shown, speed = map(float, Path(str(_CLOCK)).read_text().split())
        return datetime.fromtimestamp(shown + (ledger.now() - real) * speed, UTC)

    vars(clock)["now"] = now


is_by_text = str(_BREAKS).startswith("text:")
_CHANGED = {
    **({"worker.engine.scorer": _kill_at_deadly_text} if _DEADLY else {}),
    **({"worker.engine.device.runner": _break_device} if _BREAKS else {}),
    **({"worker.engine.scorer": _break_device_at_text} if is_by_text else {}),
    **({"worker.engine.scorer": _load_slowly} if _SLOW_LOAD_S else {}),
    **({"rankmill.devices.choice": _answer_as_driver} if _DRIVER else {}),
    **({"producer.schedules.clock": _hurry} if _CLOCK else {}),
}


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name not in _CHANGED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None:
            spec.loader = _ChangingLoader(spec.loader, _CHANGED[name])
        return spec


def _fail_every(function: Any, n: int, is_ours: Any) -> Any:
    calls = count(1)

    def failing(*arguments: Any, **options: Any) -> Any:
        if is_ours(*arguments) and next(calls) % n == 0:
            raise OSError(errno.EIO, "made to fail")
        return function(*arguments, **options)

    return failing


def _is_temporary(path: Any, *_: Any) -> bool:
    return str(path).endswith(".rankmill-tmp")


def _is_descriptor_of_ours(descriptor: int) -> bool:
    return _is_temporary(os.readlink(f"/proc/self/fd/{descriptor}"))


if _FAILING:
    call, _, every = _FAILING.partition(":")
    if call == "fsync":
        os.fsync = _fail_every(os.fsync, int(every), _is_descriptor_of_ours)
    elif call == "replace":
        os.replace = _fail_every(os.replace, int(every), _is_temporary)
        os.link = _fail_every(os.link, int(every), _is_temporary)  # how a report is committed
    elif call == "open":
        # A method is replaced on purpose, as a fault.
        Path.open = _fail_every(Path.open, int(every), _is_temporary)
if _AHEAD_S:
    real_time = time.time
    time.time = lambda: real_time() + _AHEAD_S
if _CHANGED:
    sys.meta_path.insert(0, _Finder())
