"""`rankmill` as a user types it, on one core."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from unittest.mock import patch

from producer.cli import app
from rankmill import storage
from rankmill.ledger.jobs import ledger
from tests.conftest import forget_settings

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def environment() -> dict[str, str]:
    """Return the environment as the fixtures have set it, for one core and no GPU."""
    return {**os.environ, "RANKMILL_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def rankmill(*arguments: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in a folder or in the current one."""
    return subprocess.run(
        [sys.executable, "-m", "producer.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
        env=environment(),
    )


def called(
    *arguments: object, folder: Path | None = None, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command as `rankmill` does, but in this process, which saves a second of imports.

    What it starts are processes of their own. Both streams have all that they write, too.

    Args:
        arguments: the words after `rankmill`.
        folder: the folder to run it in, if not the current one.
        variables: its whole environment, if not that of `environment`.
    """
    words = ["rankmill", *map(str, arguments)]
    with TemporaryFile() as stdout, TemporaryFile() as stderr:
        with (
            chdir(folder or Path.cwd()),
            patch.dict(os.environ, variables or environment(), clear=True),
            patch.object(sys, "argv", words),
            _written_to("stdout", stdout.fileno()),
            _written_to("stderr", stderr.fileno()),
        ):
            _forget()
            try:
                code = _exit_code()
            finally:
                _forget()
        written = []
        for file in (stdout, stderr):
            file.seek(0)
            written.append(file.read().decode())
    return subprocess.CompletedProcess(words, code, *written)


def _exit_code() -> int:
    try:
        app.main()
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    except Exception:
        traceback.print_exc()
        return 1
    return 0


@contextmanager
def _written_to(name: str, target: int) -> Iterator[None]:
    """Redirect a standard stream and its file descriptor, which children inherit."""
    descriptor = {"stdout": 1, "stderr": 2}[name]
    kept = os.dup(descriptor)
    os.dup2(target, descriptor)
    try:
        with (
            open(descriptor, "w", encoding="utf-8", closefd=False) as stream,
            patch.object(sys, name, stream),
        ):
            yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)


def _forget() -> None:
    """Forget what is kept for the life of a process and follows from its environment."""
    forget_settings()
    ledger.cache_clear()
    storage.reconnect()
