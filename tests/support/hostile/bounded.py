"""Run code in a fork that is bounded in time and memory, and classify how it ended."""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LIMIT_S = 30.0
_MEMORY_BYTES = 6 * 2**30

KINDS = ("ok", "refused", "job failed", "more than a line", "traceback", "dead", "hung")
BAD = ("more than a line", "traceback", "dead", "hung")


@dataclass(frozen=True)
class Ending:
    """The outcome of a command.

    Attributes:
        kind: one of KINDS. `refused` is one line and exit code 2, `job failed` one and 1.
        text: the end of what it wrote to stderr.
    """

    kind: str
    text: str
    seconds: float


def ending(act: Callable[[], object], folder: Path, limit_s: float = LIMIT_S) -> Ending:
    """Run a function in a fork and return how it ended.

    Args:
        folder: an existing folder for its output, and its working folder.
        limit_s: the time after which it counts as hung.
    """
    started = time.monotonic()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        _be_child(act, folder, write)
    os.close(write)
    hung = not select.select([read], [], [], limit_s)[0]  # it closes with the child's end
    os.close(read)
    if hung:
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    text = (folder / "stderr").read_bytes().decode(errors="replace")
    kind = "hung" if hung else _kind(status, text)
    return Ending(kind, text[-1500:], time.monotonic() - started)


def preload(act: Callable[[], object], folder: Path) -> None:
    """Run a function in a fork and import here what it imported, so that later forks have it.

    The function itself may start threads, such as torch's, which do not survive a fork.

    Raises:
        AssertionError: the function failed.
    """
    names = folder / "modules"

    def act_and_list() -> None:
        try:
            act()
        finally:
            names.write_text("\n".join(sys.modules))

    end = ending(act_and_list, folder)
    assert end.kind in ("ok", "refused"), end
    for name in names.read_text().splitlines():
        if name not in sys.modules:
            with contextlib.suppress(Exception):  # some are not imported by their name
                importlib.import_module(name)


def _kind(status: int, text: str) -> str:
    if os.WIFSIGNALED(status):
        return "dead"
    code = os.WEXITSTATUS(status)
    if "Traceback (most recent call last)" in text or code not in (0, 1, 2):
        return "traceback"
    if code == 0:
        return "ok"
    lines = [line for line in text.splitlines() if line.startswith("rankmill: ")]
    if len(lines) != 1 and "Usage:" not in text:  # typer frames what is wrong with a flag
        return "more than a line"
    has_controls = any(ord(letter) < 32 and letter not in "\n\t" for letter in text)
    return "more than a line" if has_controls else ("job failed", "refused")[code - 1]


def _be_child(act: Callable[[], object], folder: Path, write: int) -> None:
    """Run the function with its own output; never return."""
    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(folder / name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
        sys.stdout = os.fdopen(1, "w", errors="replace", closefd=False)
        sys.stderr = os.fdopen(2, "w", errors="replace", closefd=False)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        act()
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(write, b".")
        os._exit(code)
