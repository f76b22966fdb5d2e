"""A signal ends any command with 130 and without a traceback, from the first import to the last."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# Sends its own process a signal when a module is first imported.
HOOK = """
import importlib.abc, os, sys

class Hook(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == os.environ["AT"]:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), int(os.environ["SIGNAL"]))

sys.meta_path.insert(0, Hook())
"""


def interrupted(folder: Path, at: str, how: int, *command: str) -> subprocess.CompletedProcess[str]:
    (folder / "hook").mkdir()
    (folder / "hook" / "sitecustomize.py").write_text(HOOK)
    path = f"{folder / 'hook'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    # What nohup starts ignores SIGHUP, and what a shell starts in the background SIGINT.
    hearing = ["env", f"--default-signal={signal.Signals(how).name.removeprefix('SIG')}"]
    return subprocess.run(
        [*hearing, sys.executable, "-m", "producer.cli", *command],
        env={**os.environ, "PYTHONPATH": path, "AT": at, "SIGNAL": str(int(how))},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    "at", ["producer.cli.app", "typer", "pyarrow", "pydantic", "producer.cli.following"]
)
def test_a_signal_while_it_imports(tmp_path: Path, at: str, how: signal.Signals) -> None:
    done = interrupted(tmp_path, at, how, "jobs")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_a_command_runs(tmp_path: Path, how: signal.Signals) -> None:
    """`exporter` imports the module inside its command."""
    done = interrupted(tmp_path, "producer.cluster.exporter", how, "exporter")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
