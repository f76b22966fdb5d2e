"""Real workers whose device fails as CUDA does: the job goes on, and no row is blamed for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from producer.cluster.local import running, worker_command
from producer.jobs.submit import submit
from rankmill.devices.choice import EXIT_DEVICE_LOST
from rankmill.settings import CHECKOUT
from tests.conftest import StartWorker
from tests.support.command import called
from tests.support.inputs import pairs, read_output, read_rejected, wait_for, write

ON_CPU = {"CUDA_VISIBLE_DEVICES": "", "RANKMILL_THREADS": "1"}


@pytest.fixture
def breaking() -> dict[str, str]:
    return {**ON_CPU, "PYTHONPATH": f"{CHECKOUT / 'tests' / 'faults'}:{CHECKOUT}"}


def health() -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "worker.health"]
    return subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT)


def test_a_device_that_fails_once_costs_no_row_and_a_new_process_goes_on(
    tmp_path: Path, model_folder: Path, broker_url: str, breaking: dict[str, str]
) -> None:
    source = write(pairs(12, 5), tmp_path / "in.parquet")
    trigger, log = tmp_path / "breaks", tmp_path / "worker.log"
    trigger.touch()
    environment = {**breaking, "RANKMILL_TEST_CUDA_BREAKS": str(trigger)}
    job = submit(source, tmp_path / "out", model_id=str(model_folder), shard_pairs=20)
    with running(worker_command("one"), environment, log):
        assert job.wait(timeout_s=120).state == "succeeded"
        assert health().returncode == 0
    assert not trigger.exists() and "an illegal memory access" in log.read_text()
    assert len(read_output(tmp_path / "out")) == 60
    manifest = job.output.read_manifest()
    assert manifest is not None and manifest.n_rejected == 0


def test_a_device_that_fails_again_is_given_up_and_the_job_goes_on_elsewhere(
    tmp_path: Path,
    model_folder: Path,
    broker_url: str,
    start_worker: StartWorker,
    breaking: dict[str, str],
) -> None:
    source = write(pairs(12, 5), tmp_path / "in.parquet")
    log = tmp_path / "broken.log"
    environment = {**breaking, "RANKMILL_TEST_CUDA_BREAKS": "always"}
    job = submit(source, tmp_path / "out", model_id=str(model_folder), shard_pairs=20)
    with running(worker_command("broken"), environment, log) as broken:
        assert broken.wait(timeout=120) == EXIT_DEVICE_LOST
        shown = health()
        assert shown.returncode == 1
        assert (
            "broken@" in shown.stdout and "is given up: the device failed: CUDA err" in shown.stdout
        )
        assert job.status().state == "running"
        start_worker("sound")
        assert job.wait(timeout_s=120).state == "succeeded"
    assert len(read_output(tmp_path / "out")) == 60
    assert read_rejected(tmp_path / "out") == []


def test_rows_that_break_every_device_are_found_and_rejected(
    tmp_path: Path, model_folder: Path, broker_url: str, breaking: dict[str, str]
) -> None:
    rows = pairs(4, 8)
    rows[13]["document"] = "assert me, please"
    source = write(rows, tmp_path / "in.parquet")
    options = {"model_id": str(model_folder), "max_reject_rate": 0.1, "shard_pairs": 16}
    job = submit(source, tmp_path / "out", **options)
    environment = {
        **breaking,
        "RANKMILL_TEST_CUDA_BREAKS": "text:assert me",
        "RANKMILL_WINDOW_PAIRS": "2",
    }
    with running(worker_command("one"), environment, tmp_path / "worker.log"):
        assert job.wait(timeout_s=250).state == "succeeded with rejects"
        assert health().returncode == 0
    (rejected,) = read_rejected(tmp_path / "out")
    assert (rejected["row"], rejected["reason"]) == (13, "scoring it kills the worker")
    assert len(read_output(tmp_path / "out")) == 31


def test_run_ends_where_its_only_device_is_lost(
    tmp_path: Path, model_folder: Path, breaking: dict[str, str]
) -> None:
    source = write(pairs(4, 5), tmp_path / "in.parquet")
    command = ("run", source, tmp_path / "out", "--model", model_folder, "--device", "cpu")
    broken = {**os.environ, **breaking, "RANKMILL_TEST_CUDA_BREAKS": "always"}
    done = called(*command, variables=broken)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("rankmill: no device is left to score on: ")
    assert "an illegal memory access was encountered" in last and "Traceback" not in done.stderr
    assert not list((tmp_path / "out").glob("part-*"))


def test_workers_of_a_machine_outlive_the_device_of_one(tmp_path: Path) -> None:
    log, trigger = tmp_path / "worker.log", tmp_path / "lost"
    command = [sys.executable, "-c", SUPERVISED, str(trigger)]
    with running(command, {}, log) as parent:
        wait_for(lambda: "worker ended, device failed" in log.read_text())
        assert parent.poll() is None
        trigger.touch()
        assert parent.wait(timeout=60) == EXIT_DEVICE_LOST


SUPERVISED = """
import sys
from producer.cluster.supervise import WorkerStart, supervise
from rankmill.settings import settings
end = "import sys, time, pathlib\\n"
wait = end + "while not pathlib.Path(sys.argv[1]).exists(): time.sleep(.05)\\n"
lost = "sys.exit(3)"
trigger = sys.argv[1]
sys.exit(supervise([
    WorkerStart("one", [sys.executable, "-c", end + lost, trigger]),
    WorkerStart("two", [sys.executable, "-c", wait + lost, trigger]),
], settings()))
"""
