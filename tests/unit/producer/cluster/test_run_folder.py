"""The folders of dead runs: removed by the next run, and no other folder with them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from producer.cluster.run_folder import run_folder
from rankmill.process import Process, pid_namespace


def dead_process() -> Process:
    """Return a process that has just ended."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = Process(child.pid, "1")
    child.communicate()
    return started


def made_by(process: Process, folder: Path, **changes: Any) -> Path:
    owner = {
        "pid": process.pid,
        "born": process.born,
        "host": socket.gethostname(),
        "pid_namespace": pid_namespace(),
    }
    folder.mkdir()
    (folder / "redis.log").touch()
    (folder / "owner.json").write_text(json.dumps(owner | changes))
    return folder


def test_a_folder_lives_for_the_block_and_names_its_process(tmp_path: Path) -> None:
    with run_folder(tmp_path) as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        owner = json.loads((folder / "owner.json").read_text())
        assert Process(owner["pid"], owner["born"]) == Process.me()
        with run_folder(tmp_path) as other:  # another run leaves it alone
            assert folder.is_dir() and other != folder
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_dead_run_is_removed(tmp_path: Path) -> None:
    dead = made_by(dead_process(), tmp_path / "rankmill-dead")
    me = Process.me()
    used_again = made_by(Process(me.pid, "1"), tmp_path / "rankmill-used-again")
    with run_folder(tmp_path):
        assert not dead.exists() and not used_again.exists()


@pytest.mark.parametrize(
    "changes", [{"host": "another"}, {"pid_namespace": "pid:[1]"}, {"born": ""}, {"extra": 1}]
)
def test_a_run_whose_process_cannot_be_seen_is_left_alone(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    folder = made_by(dead_process(), tmp_path / "rankmill-elsewhere", **changes)
    with run_folder(tmp_path):
        assert folder.is_dir()


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"pid": "x", "born": "1"}'])
def test_a_folder_without_a_good_owner_file_is_left_alone(
    tmp_path: Path, content: str | None
) -> None:
    folder = tmp_path / "rankmill-scratch"
    folder.mkdir()
    if content is not None:
        (folder / "owner.json").write_text(content)
    with run_folder(tmp_path):
        assert folder.is_dir()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target = made_by(dead_process(), tmp_path / "elsewhere" / "target")
    (tmp_path / "rankmill-link").symlink_to(target)
    with run_folder(tmp_path):
        assert (target / "owner.json").exists()
