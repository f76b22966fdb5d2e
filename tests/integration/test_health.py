"""A real worker under its health check: busy, hung, without Redis, killed, stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from producer.cluster.local import start_redis
from producer.jobs.submit import submit
from rankmill.settings import CHECKOUT, settings
from tests.conftest import StartWorker
from tests.support.inputs import pairs, wait_for, write
from worker.health import complaints
from worker.liveness.files import (
    TaskRecord,
    folder,
    read_task,
    read_worker,
    task_paths,
)
from worker.liveness.heartbeat import TaskHeartbeat

STALL_S = 10


def health() -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "worker.health"], capture_output=True, text=True, timeout=30
    )
    return done.returncode, done.stdout.strip()


def said_here() -> str:
    """Return the same without starting a process, to ask often."""
    return "; ".join(complaints(folder(settings()), STALL_S))


def well() -> bool:
    return not said_here()


@pytest.fixture
def short_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKMILL_STALL_S", str(STALL_S))
    monkeypatch.setenv("RANKMILL_WINDOW_PAIRS", "50")


def worker_record_path() -> Path:
    (path,) = folder(settings()).glob("one@*.worker")
    return path


def test_a_busy_worker_is_healthy_and_a_hung_one_is_not(
    tmp_path: Path, short_stall: None, start_worker: StartWorker, broker_url: str
) -> None:
    worker = start_worker()
    wait_for(well)
    source = write(pairs(40, 100), tmp_path / "in.parquet")
    submit(source, tmp_path / "out", model_id="null:50", shard_pairs=4000)

    def at_work() -> TaskRecord | None:
        tasks = map(read_task, task_paths(folder(settings()), worker.pid))
        return next((task for task in tasks if task and task.doing), None)

    wait_for(at_work)
    # One shard of 80 s, well beyond the stall, beats all the while.
    busy_until = time.monotonic() + STALL_S + 2
    while time.monotonic() < busy_until:
        assert well(), said_here()
        time.sleep(0.1)
    assert health() == (0, "healthy")
    record = at_work()
    assert record is not None and record.doing.startswith("shard 0 of job")
    os.kill(record.process.pid, signal.SIGSTOP)
    wait_for(lambda: not well())
    code, said = health()
    assert code == 1 and "\n" not in said
    assert "no progress for" in said and record.doing in said
    os.kill(record.process.pid, signal.SIGCONT)
    wait_for(well)
    os.kill(worker.pid, signal.SIGSTOP)
    wait_for(lambda: "its main process has not moved" in said_here())
    os.kill(worker.pid, signal.SIGCONT)
    wait_for(well)
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    assert health()[1].endswith("has died")
    start_worker()  # of the same name
    wait_for(well)


def test_loading_a_model_is_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start_worker: StartWorker
) -> None:
    """It takes three times as long as a stall and a claim."""
    stall_s, load_s = 4, 12
    monkeypatch.setenv("PYTHONPATH", f"{CHECKOUT / 'tests' / 'faults'}:{CHECKOUT}")
    monkeypatch.setenv("RANKMILL_TEST_SLOW_LOAD_S", str(load_s))
    start_worker()
    job = submit(write(pairs(2, 2), tmp_path / "in.parquet"), tmp_path / "out", model_id="demo")
    wait_for(lambda: list(folder(settings()).glob("*.task")))
    wrong: set[str] = set()
    while not job.status().state.is_final:
        wrong |= set(complaints(folder(settings()), stall_s))
        time.sleep(0.05)
    assert job.status().state == "succeeded"
    # Its message loop is judged here as well, and turns less often than this stall.
    assert not [each for each in wrong if "no progress" in each], wrong
    log = (tmp_path / "worker-one.log").read_text()
    assert log.count("shard started") == 1


def test_loading_is_progress_for_a_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "1.2.task"
    heartbeat = TaskHeartbeat(path)
    monkeypatch.setattr("worker.liveness.heartbeat._BEAT_S", 0.05)

    def beats_in(seconds: float) -> bool:
        before = read_task(path)
        time.sleep(seconds)
        return read_task(path) != before

    with heartbeat.at_work("shard"), heartbeat.beat_in_background(0.5):
        assert beats_in(0.3)
        time.sleep(0.4)
        assert not beats_in(0.3)
    assert not beats_in(0.2)


def test_without_redis_a_worker_is_healthy_and_its_loop_is_judged_when_it_is_back(
    short_stall: None, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start_redis() as (url, redis):
        monkeypatch.setenv("RANKMILL_BROKER_URL", url)
        worker = start_worker()
        wait_for(well)
        path = worker_record_path()
        wait_for(lambda: (record := read_worker(path)) and record.turned_at and record.redis_at)
        redis.kill()
        wait_for(lambda: (record := read_worker(path)) and record.redis_since is None)
        away_until = time.monotonic() + STALL_S + 2
        while time.monotonic() < away_until:
            assert well(), said_here()
            time.sleep(0.1)
        assert health() == (0, "healthy")
        assert worker.poll() is None


def test_a_worker_that_ends_removes_its_files(start_worker: StartWorker) -> None:
    worker = start_worker()
    wait_for(well)
    path = worker_record_path()
    wait_for(lambda: (record := read_worker(path)) and record.turned_at)  # it has begun
    worker.send_signal(signal.SIGTERM)
    worker.wait(60)
    assert list(path.parent.iterdir()) == []
