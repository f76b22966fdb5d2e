"""Workers for one role, one model or several devices take their own work."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from producer.cluster.local import running
from producer.jobs.submit import submit
from rankmill.broker import CONTROL_QUEUE, SCORE_QUEUE, app, score_queue
from rankmill.ledger.jobs import Ledger
from rankmill.settings import CHECKOUT, settings
from tests.support.command import rankmill
from tests.support.inputs import pairs, read_output, wait_for, write

TWO_GPUS = {"torch": "2.13.0", "torch_cuda": "13.0", "has_library": True, "n_visible": 2}

Serve = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def serve(broker_url: str, tmp_path: Path) -> Iterator[Serve]:
    """Start `rankmill worker` with options; its log is `NAME.log`."""
    with ExitStack() as stack:

        def start(name: str, *options: str, **environment: str) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", "producer.cli", "worker", "--name", name, *options]
            on_cpu = {"CUDA_VISIBLE_DEVICES": "", "RANKMILL_DEVICE": "cpu", "RANKMILL_THREADS": "1"}
            log = tmp_path / f"{name}.log"
            return stack.enter_context(running(command, {**on_cpu, **environment}, log))

        yield start


@pytest.fixture
def own_queues(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKMILL_MODEL_QUEUES", "null:2000, demo")
    settings.cache_clear()
    app.cache_clear()


def loaded_libraries(log: Path) -> set[str]:
    """Return the mapped files of the processes that write to a log: a worker and its pool."""
    names = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "fd" / "1").resolve() == log.resolve():
                names |= {Path(line.split()[-1]).name for line in _lines(process / "maps")}
        except OSError:
            continue
    return names


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if "/" in line]


def test_control_and_scoring_are_done_by_the_worker_of_that_role(
    tmp_path: Path, serve: Serve, ledger: Ledger
) -> None:
    serve("hub", "--role", "control")
    serve("scorer", "--role", "score")
    # Unclustered pairs are prepared first, so that all of submit's followers are needed.
    rows = sorted(pairs(20, 5), key=lambda row: row["doc_id"])
    source = write(rows, tmp_path / "in.parquet")
    job = submit(source, tmp_path / "out", model_id="demo", cluster=True, shard_pairs=25)
    assert job.wait(timeout_s=90).state == "succeeded"
    assert len(read_output(tmp_path / "out")) == len(rows)
    ran = {name: (tmp_path / f"{name}.log").read_text() for name in ("hub", "scorer")}
    for task in ("prepare", "finalize"):
        assert f"rankmill.{task}[" in ran["hub"] and f"rankmill.{task}[" not in ran["scorer"]
    assert "rankmill.score_shard[" in ran["scorer"] and "rankmill.score_shard[" not in ran["hub"]
    libraries = {name: loaded_libraries(tmp_path / f"{name}.log") for name in ran}
    assert "libtorch_cpu.so" in libraries["scorer"]
    assert libraries["hub"] and "libtorch_cpu.so" not in libraries["hub"]
    assert (
        ledger.workers.n_live() == 1
    )  # only scoring workers count for the window of shards in flight


def test_a_worker_of_one_model_leaves_the_shards_of_others(
    tmp_path: Path, serve: Serve, own_queues: None, broker_url: str, ledger: Ledger
) -> None:
    source = write(pairs(20, 5), tmp_path / "in.parquet")
    serve("hub", "--role", "control")
    serve("fast", "--model", "null:2000")
    slow = submit(source, tmp_path / "slow", model_id="demo", shard_pairs=50)
    fast = submit(source, tmp_path / "fast", model_id="null:2000", shard_pairs=50)
    assert fast.wait(timeout_s=60).state == "succeeded"
    # After several scans for lost shards: a shard that waits in a model's queue is not lost.
    seen = ledger.now()
    wait_for(lambda: ledger.now() > seen + 4 * settings().reconcile_s)
    assert len(ledger.queued(score_queue("demo"))) == 2
    assert not ledger.queued(SCORE_QUEUE) and not ledger.queued(CONTROL_QUEUE)
    serve("any", "--role", "score")
    assert slow.wait(timeout_s=90).state == "succeeded"


def test_a_model_without_its_own_queue_cannot_be_served_alone(own_queues: None) -> None:
    refused = rankmill("worker", "--model", "BAAI/bge-reranker-v2-m3")
    assert refused.returncode == 2
    assert "RANKMILL_MODEL_QUEUES" in refused.stderr and "null:2000, demo" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("end", ["signal", "death"])
def test_a_worker_for_each_device_live_and_end_together(
    serve: Serve, ledger: Ledger, tmp_path: Path, end: str
) -> None:
    port = two_free_ports()
    parent = serve(
        "gpu",
        CUDA_VISIBLE_DEVICES="0,1",
        RANKMILL_DEVICE="cuda",
        RANKMILL_METRICS_PORT=str(port),
        RANKMILL_TEST_DRIVER=json.dumps(TWO_GPUS),
        PYTHONPATH=f"{CHECKOUT / 'tests' / 'faults'}:{CHECKOUT}",
    )
    wait_for(lambda: ledger.workers.n_live() == 2)
    children = list(
        map(int, Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split())
    )
    given = [_environment(pid) for pid in children]
    places = sorted((e["CUDA_VISIBLE_DEVICES"], e["RANKMILL_METRICS_PORT"]) for e in given)
    assert places == [("0", str(port)), ("1", str(port + 1))]
    assert {each["RANKMILL_DEVICE"] for each in given} == {"cuda"}
    if end == "signal":
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(timeout=90) == 0
    else:
        os.kill(children[0], signal.SIGKILL)
        assert parent.wait(timeout=90) == 128 + signal.SIGKILL
        assert "ended by itself" in (tmp_path / "gpu.log").read_text()
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)


def two_free_ports() -> int:
    """Return the first of two that follow each other."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


def _environment(pid: int) -> dict[str, str]:
    fields = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(field.split("=", 1) for field in fields if "=" in field)
