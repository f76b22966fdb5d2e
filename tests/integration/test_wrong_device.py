"""A GPU that is wanted and cannot be used is an error at every start, never the CPU in its place.

This machine's own answer is asked for: its torch sees no GPU, or the test hides what it has.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from producer.cluster.local import devices, running, worker_command
from producer.jobs.submit import submit
from rankmill.contract.results import Scoring
from rankmill.output.output import Output
from rankmill.settings import CHECKOUT, settings
from tests.support.command import called, rankmill
from tests.support.inputs import pairs, wait_for, write

NO_GPU = "no usable GPU: "
LENT = {"torch": "2.13.0+cu130", "torch_cuda": "13.0", "driver": "550.54", "driver_cuda": "12.4"}
OLD_DRIVER = {**LENT, "has_library": True}


def scorings(output: Path) -> tuple[Scoring, ...]:
    manifest = Output(str(output)).read_manifest()
    assert manifest is not None
    return manifest.scoring


def only_line(done: subprocess.CompletedProcess[str]) -> str:
    (line,) = done.stderr.splitlines()
    return line


def test_commands_refuse_it_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(pairs(2, 2), tmp_path / "in.parquet")
    for wanted in ("cuda", "cuda:1"):
        for command in (
            ("run", source, tmp_path / "out", "--model", "demo"),
            ("worker",),
            ("estimate", source, "--model", "demo"),
        ):
            done = called(*command, "--device", wanted)
            assert done.returncode == 2, done.stderr
            assert only_line(done).startswith(f"rankmill: device {wanted} ")
            assert NO_GPU in done.stderr
    monkeypatch.setenv("RANKMILL_DEVICE", "cuda")
    done = called("run", source, tmp_path / "out", "--model", "demo")
    assert done.returncode == 2 and NO_GPU in only_line(done)
    assert not (tmp_path / "out").exists()
    # A flag comes before the variable.
    done = called("run", source, tmp_path / "out", "--model", "demo", "--device", "cpu")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["run", "worker", "doctor", "estimate"])
def test_an_unknown_device_is_refused_by_each_command(command: str, tmp_path: Path) -> None:
    places = {"run": ("in.parquet", "out"), "estimate": ("in.parquet",)}.get(command, ())
    done = called(command, *places, "--device", "0, 1")
    assert done.returncode == 2
    assert only_line(done).startswith("rankmill: --device '0, 1' is not a device; give auto, cpu, ")


def test_doctor_reports_it_as_failed(broker_url: str, tmp_path: Path) -> None:
    done = rankmill("doctor", "--json", "--device", "cuda")
    (found,) = [each for each in json.loads(done.stdout) if each["name"] == "devices"]
    assert done.returncode == 1
    assert found["state"] == "problem" and NO_GPU in found["message"] and found["fix"]


def test_a_celery_worker_ends_at_its_start_and_health_says_why(
    broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKMILL_DEVICE", "cuda")
    log = tmp_path / "worker.log"
    with running(worker_command("one"), {"CUDA_VISIBLE_DEVICES": ""}, log) as worker:
        assert worker.wait(timeout=60) == 2
    assert NO_GPU in log.read_text() and "Traceback" not in log.read_text()
    health = subprocess.run(
        [sys.executable, "-m", "worker.health"], capture_output=True, text=True, cwd=CHECKOUT
    )
    assert health.returncode == 1 and health.stdout.count("\n") == 1
    assert "no worker runs here" in health.stdout and NO_GPU in health.stdout


def test_a_control_worker_needs_no_device(broker_url: str, tmp_path: Path) -> None:
    log = tmp_path / "control.log"
    command = [sys.executable, "-m", "producer.cli", "worker", "--role", "control"]
    with running(command, {"RANKMILL_DEVICE": "cuda"}, log) as worker:
        wait_for(lambda: worker.poll() is not None or list(tmp_path.rglob("*.worker")))
        assert worker.poll() is None, log.read_text()


def test_a_torch_that_is_known_to_be_wrong_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "torch-2.12.1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.12.1\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{CHECKOUT}")
    for command in (("worker",), ("worker", "--device", "cpu")):
        done = rankmill(*command)
        assert done.returncode == 2
        assert only_line(done).startswith("rankmill: torch 2.12.1 cannot be used: ")


@pytest.fixture
def old_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKMILL_TEST_DRIVER", json.dumps(OLD_DRIVER))
    monkeypatch.setenv("PYTHONPATH", f"{CHECKOUT / 'tests' / 'faults'}:{CHECKOUT}")


def test_auto_on_the_cpu_is_loud_and_in_the_manifest(old_driver: None, tmp_path: Path) -> None:
    source = write(pairs(2, 2), tmp_path / "in.parquet")
    environ = {**os.environ, "CUDA_VISIBLE_DEVICES": "0", "RANKMILL_THREADS": "1"}
    command = ["run", str(source), str(tmp_path / "out"), "--model", "demo", "--device", "auto"]
    done = subprocess.run(
        [sys.executable, "-m", "producer.cli", *command],
        capture_output=True,
        text=True,
        env=environ,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "scoring on cpu" in line]
    assert "NVIDIA driver 550.54 knows CUDA 12.4 and is too old for CUDA 13.0" in line
    (scoring,) = scorings(tmp_path / "out")
    assert scoring.device == "cpu" and "is too old for CUDA 13.0" in str(scoring.device_reason)


def test_a_worker_on_the_cpu_by_auto_warns_and_reports_why(
    old_driver: None, broker_url: str, tmp_path: Path
) -> None:
    source = write(pairs(2, 2), tmp_path / "in.parquet")
    log = tmp_path / "worker.log"
    with running(worker_command("one"), {"RANKMILL_THREADS": "1"}, log):
        job = submit(source, tmp_path / "out", model_id="demo")
        assert job.wait(timeout_s=90).state == "succeeded"
    assert "too old for CUDA 13.0" in log.read_text()
    (scoring,) = scorings(tmp_path / "out")
    assert "is too old for CUDA 13.0" in str(scoring.device_reason)


def test_a_device_that_is_chosen_leaves_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKMILL_DEVICE", "cpu")
    settings.cache_clear()
    (cpu,) = devices("cpu")
    assert cpu.surprise is None and "RANKMILL_DEVICE_REASON" not in cpu.environment
