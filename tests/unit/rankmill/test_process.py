"""A process counts as alive only while the one that was meant runs."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from rankmill.process import Process


def test_the_calling_process_is_alive() -> None:
    me = Process.me()
    assert me.is_alive and Process(me.pid).is_alive


def test_the_start_is_written_as_in_earlier_versions() -> None:
    ticks = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    assert Process.me().born == ticks


def test_a_later_process_with_the_same_id_is_another() -> None:
    assert not Process(Process.me().pid, "7").is_alive


def test_an_ended_process_is_dead_before_its_parent_waits_for_it() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert Process(child.pid).is_alive
    child.kill()
    deadline = time.monotonic() + 10
    while Process(child.pid).is_alive:  # a zombie from now on
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.communicate()
    assert not Process(child.pid).is_alive
