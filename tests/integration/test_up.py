"""`rankmill up` and `rankmill beat`: real processes, started where a `tasks.py` is in the way."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from producer import submit
from producer.cluster.up import run_cluster
from rankmill.errors import BrokerUnavailable, InputError
from tests.conftest import forget_settings
from tests.support.command import environment
from tests.support.inputs import pairs, wait_for, write


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Enter a folder whose own modules must not be imported."""
    for name in ("tasks", "worker"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANKMILL_BROKER_URL", raising=False)
    monkeypatch.setenv("RANKMILL_TICK_S", "0.5")
    monkeypatch.setenv("RANKMILL_RUNTIME", str(tmp_path))
    forget_settings()
    yield tmp_path
    monkeypatch.undo()
    forget_settings()


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start a command as its installed script does, whose folder is not on the path."""
    script = "import sys; sys.path.pop(0); from producer.cli.entry import main; main()"
    hearing = ["env", "--default-signal=INT"]  # what a shell starts in the background ignores it
    return subprocess.Popen(
        [*hearing, sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def test_a_cluster_comes_up_runs_a_job_refuses_a_second_and_ends_with_ctrl_c(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start("up", "--flower-port", "0", "--device", "cpu")
    assert process.stdout is not None
    shown = ""
    while "rankmill watch" not in shown and (line := process.stdout.readline()):
        shown += line
    assert "rankmill watch" in shown, process.communicate()
    children = psutil.Process(process.pid).children(recursive=True)
    try:
        url = re.search(r"export RANKMILL_BROKER_URL=(\S+)", shown)
        flower = re.search(r"http://127.0.0.1:(\d+), login rankmill:\S{16}", shown)
        assert url and flower and "1 on cpu, beat" in shown
        socket.create_connection(("127.0.0.1", int(flower[1]))).close()

        with pytest.raises(InputError, match=f"up runs already, process {process.pid}, with"):
            run_cluster([], None, False, print)

        monkeypatch.setenv("RANKMILL_BROKER_URL", url[1])
        forget_settings()
        write(pairs(2, 3), folder / "in.parquet")
        assert submit(folder / "in.parquet", folder / "out", model="null").wait(60).state.is_success
    finally:
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 0 and "stopped; unfinished jobs go on" in error, error
    assert [child for child in children if is_at_work(child)] == []
    kept = Path(url[1].removeprefix("redis+socket://")).parent
    assert (kept / "appendonlydir").exists() or (kept / "appendonly.aof").exists()


def is_at_work(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_port_in_use_and_a_broker_that_is_away_are_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"--flower-port {port}: Address already in use"):
            run_cluster([], port, False, print)
    monkeypatch.setenv("RANKMILL_BROKER_URL", "redis://127.0.0.1:1/0")
    forget_settings()
    with pytest.raises(BrokerUnavailable, match="Redis does not answer"):
        run_cluster([], None, False, print)


def test_beat_starts_where_another_module_is_called_tasks(
    folder: Path, redis_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = redis.Redis.from_url(redis_server.replace("redis+socket://", "unix://"))
    client.flushall()
    monkeypatch.setenv("RANKMILL_BROKER_URL", redis_server)
    process = start("beat")
    try:
        wait_for(lambda: client.llen("rankmill.control"), 60)
        (sent, *_) = client.lrange("rankmill.control", 0, -1)
        assert json.loads(sent)["headers"]["task"] == "rankmill.tick"
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0
