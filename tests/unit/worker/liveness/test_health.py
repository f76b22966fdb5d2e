"""The health check distinguishes hung workers from busy ones by the records that a test writes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rankmill.errors import InputError
from rankmill.process import Process
from rankmill.settings import Settings
from tests.support.inputs import wait_for
from worker.health import complaints
from worker.liveness.device_record import DeviceRecord
from worker.liveness.files import (
    RecordFile,
    TaskRecord,
    WorkerRecord,
    counters_path,
    device_path,
    folder,
    own_folder,
    read_task,
    task_path,
    worker_path,
)
from worker.liveness.heartbeat import TaskHeartbeat, WorkerHeartbeat

pytestmark = pytest.mark.slow

STALL_S = 600.0
ME = Process.me()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return own_folder(Settings(runtime=str(tmp_path)))


def leave(place: Path, name: str = "cpu@here", process: Process = ME, **ages: float) -> None:
    now = time.monotonic()
    record = WorkerRecord(name, process, now, turned_at=now, redis_since=now - 9000, redis_at=now)
    record = replace(record, **{what: now - age for what, age in ages.items()})
    RecordFile(worker_path(place, name)).write(record)


def leave_task(
    place: Path, doing: str, age_s: float, process: Process = ME, child: int = 2
) -> None:
    record = TaskRecord(process, doing, time.monotonic() - age_s)
    RecordFile(task_path(place, ME.pid, child)).write(record)


def test_a_worker_that_waits_and_one_that_is_busy_are_healthy(place: Path) -> None:
    leave(place)
    assert complaints(place, STALL_S) == []
    leave_task(place, "shard 3 of job abc", age_s=599)
    assert complaints(place, STALL_S) == []
    leave_task(place, "", age_s=9000)
    assert complaints(place, STALL_S) == []


def test_a_shard_without_progress_is_named(place: Path) -> None:
    leave(place)
    leave_task(place, "shard 3 of job abc", age_s=612)
    leave_task(place, "shard 4 of job abc", age_s=1, child=3)
    (said,) = complaints(place, STALL_S)
    assert said == "cpu@here: no progress for 612 s with shard 3 of job abc"


def test_a_child_that_died_at_work_is_replaced_and_no_reason_to_complain(place: Path) -> None:
    leave(place)
    leave_task(place, "shard 3 of job abc", age_s=612, process=replace(ME, born="7"))
    assert complaints(place, STALL_S) == []


def test_a_main_process_without_ticks_is_named(place: Path) -> None:
    leave(place, ticked_at=61)
    (said,) = complaints(place, STALL_S)
    assert said == "cpu@here: its main process has not moved for 61 s"


def test_a_message_loop_may_wait_for_redis_but_not_stop_while_it_answers(place: Path) -> None:
    leave(place, turned_at=4000, redis_at=3500)  # Redis went away 500 s after the loop
    assert complaints(place, STALL_S) == []
    leave(place, turned_at=4000, redis_since=500)  # and came back 500 s ago
    assert complaints(place, STALL_S) == []
    leave(place, turned_at=4000, redis_since=601)
    (said,) = complaints(place, STALL_S)
    assert "takes no messages for 601 s, though Redis answers" in said


def test_all_workers_of_a_machine_must_be_well(place: Path) -> None:
    leave(place, "cuda0@here")
    leave(place, "cuda1@here", process=Process(ME.pid, "another"))
    leave(place, "cuda2@here", ticked_at=100)
    gone, still = complaints(place, STALL_S)
    assert gone == "cuda1@here has died" and still.startswith("cuda2@here")


def test_where_nothing_was_started_nothing_is_healthy(tmp_path: Path, place: Path) -> None:
    for nowhere in (tmp_path / "none", place):
        assert "no worker runs here" in complaints(nowhere, STALL_S)[0]


def test_a_folder_that_others_can_write_to_is_not_trusted(tmp_path: Path, place: Path) -> None:
    place.chmod(0o777)
    with pytest.raises(InputError, match="RANKMILL_RUNTIME"):
        complaints(place, STALL_S)
    place.rmdir()
    place.symlink_to(tmp_path)
    with pytest.raises(InputError, match="RANKMILL_RUNTIME"):
        own_folder(Settings(runtime=str(tmp_path)))


def test_a_worker_that_is_being_stopped_may_take_its_time(place: Path) -> None:
    heartbeat = WorkerHeartbeat()
    heartbeat.loop_turned()
    heartbeat.loop_stopping()
    heartbeat.loop_turned()  # Celery says goodbye
    heartbeat.redis_answered()
    assert heartbeat.record.turned_at is None and heartbeat.record.redis_since is not None


def test_files_go_with_their_worker_and_those_of_killed_ones_are_swept(tmp_path: Path) -> None:
    configured = Settings(runtime=str(tmp_path))
    place = own_folder(configured)
    ended = subprocess.Popen(["true"])
    ended.wait()
    dead = TaskRecord(replace(ME, born="7"), "shard 3 of job abc", time.monotonic())
    RecordFile(task_path(place, ended.pid, 2)).write(dead)
    RecordFile(task_path(place, ended.pid, ended.pid))  # it ended before its first task
    counters_path(place, ended.pid).mkdir()
    heartbeat = WorkerHeartbeat()
    heartbeat.start("cpu@here", configured)
    assert complaints(place, STALL_S) == []
    assert [path.name for path in place.iterdir()] == ["cpu@here.worker"]
    heartbeat.stop()
    assert list(place.iterdir()) == []


def test_a_worker_takes_nothing_over_from_one_with_its_process_id(tmp_path: Path) -> None:
    """After a kill, a container's process has the id of the one before, and may have its files."""
    configured = Settings(runtime=str(tmp_path))
    place = own_folder(configured)
    DeviceRecord(device_path(place, ME.pid)).failed("abc/1", "lost", at_its_proof=False)
    counters_path(place, ME.pid).mkdir()
    leave_task(place, "", age_s=1)
    heartbeat = WorkerHeartbeat()
    heartbeat.start("cpu@here", configured)
    assert [path.name for path in place.iterdir()] == ["cpu@here.worker"]
    heartbeat.stop()


def test_a_process_that_loads_a_model_for_no_task_leaves_no_file(place: Path) -> None:
    """As `rankmill models check` and `rerank` do."""
    path = task_path(place, ME.pid, 2)
    heartbeat = TaskHeartbeat(path)
    with heartbeat.beat_in_background():
        heartbeat.beat()
    assert list(place.iterdir()) == []
    with heartbeat.at_work("shard 3 of job abc"):
        found = read_task(path)
        assert found is not None and found.doing == "shard 3 of job abc"


CHILD = """
import time
from worker.signals import _start_task, _end_task
class prepare: name = "rankmill.prepare"
_start_task(prepare)
print("at work", flush=True)
time.sleep(60)
"""


def test_preparing_is_healthy_however_long_its_statements_until_its_process_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKMILL_RUNTIME", str(tmp_path))
    place = own_folder(Settings())
    worker = RecordFile(worker_path(place, "cpu@here"))

    def judged() -> list[str]:
        # This process does not tick.
        worker.write(WorkerRecord("cpu@here", ME, time.monotonic()))
        return complaints(place, stall_s=4)

    child = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE)
    try:
        assert child.stdout and child.stdout.readline() == b"at work\n"
        record = task_path(place, ME.pid, child.pid)
        first = record.read_text()
        wait_for(lambda: record.read_text() != first)  # the thread beats
        os.kill(child.pid, signal.SIGSTOP)
        wait_for(judged)
        assert "with rankmill.prepare" in judged()[0]
        os.kill(child.pid, signal.SIGCONT)
        wait_for(lambda: not judged())
    finally:
        child.kill()
        child.communicate()


def test_the_check_loads_next_to_nothing_and_says_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKMILL_RUNTIME", str(tmp_path))
    listed = "import runpy, sys\ntry: runpy.run_module('worker.health', run_name='__main__')\n"
    listed += "finally: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", listed], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout.count("\n") == 1
    assert str(folder(Settings())) in done.stdout
    heavy = {"torch", "celery", "redis", "pyarrow", "numpy", "prometheus_client"}
    assert not heavy & set(done.stderr.split())


def test_the_check_answers_in_time_where_the_driver_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\nexec sleep 60\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("RANKMILL_RUNTIME", str(tmp_path))
    monkeypatch.setenv("RANKMILL_DEVICE", "cuda")
    done = subprocess.run(
        [sys.executable, "-m", "worker.health"], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1 and done.stdout.count("\n") == 1
    assert "no worker runs here" in done.stdout
    assert "the NVIDIA driver did not answer within 4 s" in done.stdout
