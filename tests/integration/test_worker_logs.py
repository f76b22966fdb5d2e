"""The log of a real worker, through a job, a killed child and a lost Redis."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from producer.cluster.local import redis_command, running
from producer.jobs.submit import submit
from rankmill.broker import SCORE_QUEUE, app
from rankmill.ledger.jobs import Ledger
from rankmill.settings import settings
from tests.conftest import StartWorker
from tests.support.inputs import pairs, wait_for, write
from tests.support.processes import pool_processes

PASSWORD = "in-no-line-of-any-log"


@pytest.fixture
def guarded_redis(
    broker_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Any]:
    """Start a Redis on TCP with a password, in place of the usual one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *redis_command(tmp_path / "redis.sock"),
        *("--port", str(port), "--bind", "127.0.0.1", "--requirepass", PASSWORD),
    ]
    url = f"redis://:{PASSWORD}@127.0.0.1:{port}/0"
    monkeypatch.setenv("RANKMILL_BROKER_URL", url)
    settings.cache_clear()
    app.cache_clear()
    with running(command, {}, tmp_path / "redis.log") as process:
        wait_for(lambda: _answers(url))
        yield process


def _answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False


def test_each_line_is_json_about_its_shard_and_without_the_password(
    tmp_path: Path,
    guarded_redis: Any,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANKMILL_LOG_LEVEL", "DEBUG")
    log = tmp_path / "worker-one.log"
    worker = start_worker()
    rows = pairs(12, 10)
    source = write(rows, tmp_path / "in.parquet")
    job = submit(source, tmp_path / "out", model_id="null:40", shard_pairs=30)
    wait_for(lambda: len(job.output.reported_shards()) >= 1)
    for child in pool_processes(worker.pid):
        os.kill(child, signal.SIGKILL)
    job.wait(timeout_s=60)
    failing = submit(write([*rows, rows[0]], tmp_path / "bad.parquet"), tmp_path / "bad")
    wait_for(lambda: failing.output.has_ended())
    guarded_redis.terminate()
    guarded_redis.wait()
    wait_for(lambda: "waiting for Redis" in log.read_text())

    text = log.read_text()
    assert PASSWORD not in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert {"timestamp", "level", "event", "logger"} <= set.intersection(*map(set, lines))
    above_debug = [line for line in lines if line["level"] != "debug"]
    assert {line["worker"] for line in above_debug} == {f"one@{socket.gethostname()}"}
    for event in ("shard started", "Task rankmill.score_shard["):
        about = {
            (line["job_id"], line["shard_index"])
            for line in lines
            if line["event"].startswith(event) and line.get("job_id") == job.job_id
        }
        assert about == {(job.job_id, n) for n in range(4)}, event
    (failure,) = [line for line in lines if line["event"] == "job failed"]
    assert (failure["job_id"], failure["level"]) == (failing.job_id, "error")
    (killed,) = [line for line in lines if line["event"].startswith("Process")]
    assert "SIGKILL" in killed["event"] and killed["logger"] == "multiprocessing"


def test_a_worker_that_a_terminal_quits_logs_no_traceback(
    tmp_path: Path, start_worker: StartWorker
) -> None:
    worker, log = start_worker(), tmp_path / "worker-one.log"
    wait_for(lambda: log.exists() and " ready." in log.read_text())
    os.killpg(worker.pid, signal.SIGQUIT)  # as Ctrl+\ sends it, to each of its processes
    worker.wait(30)
    assert "Cold shutdown" in log.read_text() and "Traceback" not in log.read_text()


def test_beat_logs_json_lines(tmp_path: Path, broker_url: str) -> None:
    log = tmp_path / "beat.log"
    command = [sys.executable, "-m", "celery", "--quiet", "-A", "tasks", "beat"]
    with running([*command, "--schedule", str(tmp_path / "schedule")], {}, log):
        wait_for(lambda: "beat: Starting" in log.read_text())
        assert all(json.loads(line) for line in log.read_text().splitlines())


def test_a_private_clusters_worker_logs_text(tmp_path: Path) -> None:
    """`rankmill run` shows the last line of its workers' log when one has gone."""
    script = (
        "import os, signal, time\n"
        "from producer.cluster.local import devices, local_cluster\n"
        "with local_cluster(devices('cpu')) as cluster:\n"
        "    while b'ready' not in cluster.log_path.read_bytes(): time.sleep(0.05)\n"
        "    print(cluster.log_path.read_text())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "RANKMILL_LOG_FORMAT": "json"},
    )
    assert "ready." in done.stdout and "{" not in done.stdout, done.stderr


RETRY = """
from tasks.jobs import score_shard
from rankmill.errors import TransientError
score_shard.push_request(
    id="0123456789ab-00000", args=[], kwargs={"shard": {"output_uri": "s3://b/k"}}, retries=0,
    argsrepr="", kwargsrepr="shard 1 of 2", called_directly=False, delivery_info={},
)
score_shard.again(TransientError("away"), 60.0)
"""


def test_a_retry_keeps_the_short_description_of_its_arguments(ledger: Ledger) -> None:
    done = subprocess.run([sys.executable, "-c", RETRY], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (message,) = ledger.queued(SCORE_QUEUE)
    headers = json.loads(message)["headers"]
    assert (headers["retries"], headers["kwargsrepr"]) == (1, "shard 1 of 2")
