"""The command line's process is over once its answer is given, whatever a library still does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_WITH_A_THREAD = """
import atexit, sys, threading
from producer.cli.__main__ import run
threading.Thread(target=threading.Event().wait).start()
sys.argv = ["rankmill", *sys.argv[1:]]
atexit.register(print, "and what is due at the end was done")
run()
"""


@pytest.mark.parametrize(
    ("arguments", "exit_code", "told"),
    [(["--help"], 0, "Usage"), (["run"], 2, "Missing argument"), (["status", "/no"], 2, "no job")],
)
def test_it_ends_with_its_exit_code(arguments: list[str], exit_code: int, told: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITH_A_THREAD, *arguments],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=30,
    )
    assert done.returncode == exit_code
    assert told in done.stdout + done.stderr
    assert done.stdout.endswith("and what is due at the end was done\n")
