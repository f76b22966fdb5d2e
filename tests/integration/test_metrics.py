"""The metrics of a real worker and of the exporter, through the death of a child."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from producer.jobs.submit import submit
from rankmill import metrics
from rankmill.broker import CONTROL_QUEUE, TICK, app
from rankmill.ledger.jobs import ledger
from rankmill.settings import settings
from tests.conftest import StartWorker
from tests.support.inputs import pairs, wait_for, write
from tests.support.metrics import exporting, one, scrape
from tests.support.redis_server import free_port
from worker.liveness.files import counters_path, folder


@pytest.fixture
def worker_port(monkeypatch: pytest.MonkeyPatch) -> int:
    port = free_port()
    monkeypatch.setenv("RANKMILL_METRICS_PORT", str(port))
    monkeypatch.setenv("RANKMILL_WINDOW_PAIRS", "50")
    return port


def test_a_worker_counts_its_work(
    tmp_path: Path, model_folder: Path, worker_port: int, start_worker: StartWorker
) -> None:
    rows = pairs(10, 20)
    rows[3]["document"], rows[4]["document"], rows[5]["query"] = None, " ", None
    rows[6]["document"] = "small database tools " * 300
    start_worker()
    wait_for(lambda: metrics.PAIRS.name in scrape(worker_port))
    assert one(scrape(worker_port), metrics.WORKER_HEALTHY) == 1
    options = {"model_id": str(model_folder), "max_reject_rate": 1.0, "max_length": 32}
    source = write(rows, tmp_path / "in.parquet")
    job = submit(source, tmp_path / "out", shard_pairs=100, **options)
    job.wait(timeout_s=90)
    manifest = job.output.read_manifest()
    assert manifest is not None
    wait_for(lambda: one(scrape(worker_port), metrics.SHARDS, "scored") == 2)
    scraped = scrape(worker_port)
    assert (
        one(scraped, metrics.PAIRS)
        == one(scraped, metrics.UNIQUE_PAIRS)
        == manifest.n_scored
        == 197
    )
    assert one(scraped, metrics.TOKENS) == manifest.n_tokens
    assert one(scraped, metrics.TRUNCATED) == manifest.n_truncated > 0
    rejected = scraped[metrics.REJECTS.name]
    assert {reason: n for (reason,), n in rejected.items() if n} == {"null": 2, "empty": 1}
    assert one(scraped, metrics.SHARD_SECONDS, suffix="_count") == 2
    for metric in (metrics.BUSY_SECONDS, metrics.SCORING_SECONDS, metrics.STARVED_SECONDS):
        assert one(scraped, metric) > 0
    for metric in (metrics.FORWARD_SECONDS, metrics.BATCH_FILL):
        assert one(scraped, metric, suffix="_sum") > 0
    memory = {kind: n for (kind,), n in scraped[metrics.DEVICE_MEMORY.name].items()}
    assert 10**7 < memory["allocated"] < memory["total"]
    ((labels, value),) = scraped[metrics.MODEL_INFO.name].items()
    assert value == 1 and set(labels) >= {str(model_folder), "packed", "cpu"}
    declared = {each.name for each in metrics.OF_WORKER}
    assert {re.sub("_(bucket|sum|count|created)$", "", name) for name in scraped} <= declared


def test_counters_outlive_a_killed_child_and_its_model_does_not(
    tmp_path: Path, worker_port: int, start_worker: StartWorker
) -> None:
    worker = start_worker()
    wait_for(lambda: metrics.PAIRS.name in scrape(worker_port))
    source = write(pairs(20, 100), tmp_path / "in.parquet")
    job = submit(source, tmp_path / "out", model_id="null:400", shard_pairs=500)
    wait_for(lambda: one(scrape(worker_port), metrics.SHARDS, "scored") >= 1)
    listed = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
    for child in listed:
        if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text():
            os.kill(int(child), signal.SIGKILL)
    before = one(scrape(worker_port), metrics.PAIRS)
    assert before >= 500
    job.wait(timeout_s=90)
    wait_for(lambda: one(scrape(worker_port), metrics.SHARDS, "scored") == 4)
    after = scrape(worker_port)
    assert one(after, metrics.PAIRS) >= 2000 > before
    assert one(after, metrics.SHARD_SECONDS, suffix="_count") == 4
    files = list(counters_path(folder(settings()), worker.pid).iterdir())
    assert len(files) == 3, "a dead child's files are taken over, or they would pile up"
    other = submit(source, tmp_path / "other", model_id="null", shard_pairs=1000)
    other.wait(timeout_s=60)
    models = scrape(worker_port)[metrics.MODEL_INFO.name]
    assert {labels[1]: value for labels, value in models.items()} == {"null:400": 0, "null": 1}
    worker.kill()
    worker.wait()
    (seen,) = ledger().redis.zrange("rankmill:workers", 0, -1)
    ledger().redis.zadd("rankmill:workers", {str(seen): ledger().now() - 120})
    ledger().workers.forget_unseen([])
    assert ledger().workers.n_live() == 0 and ledger().workers.n_lost() == 1


def test_a_worker_whose_port_is_taken_works_without(
    tmp_path: Path, worker_port: int, start_worker: StartWorker
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", worker_port))
        taken.listen()
        start_worker()
        source = write(pairs(2, 5), tmp_path / "in.parquet")
        assert submit(source, tmp_path / "out", model_id="null").wait(timeout_s=60)
    assert "RANKMILL_METRICS_PORT" in (tmp_path / "worker-one.log").read_text()


def test_the_exporter_serves_jobs_queues_and_redis(
    tmp_path: Path, start_worker: StartWorker, broker_url: str
) -> None:
    source = write(pairs(20, 100), tmp_path / "in.parquet")
    with exporting(tmp_path / "exporter.log") as port:
        empty = scrape(port)
        assert one(empty, metrics.JOBS) == one(empty, metrics.WORKERS) == 0
        assert metrics.JOB_PAIRS.name not in empty
        app().send_task(TICK, priority=9)
        assert one(scrape(port), metrics.QUEUE, "none", CONTROL_QUEUE) == 1
        ledger().redis.flushall()
        job = submit(source, tmp_path / "out", model_id="null:100", shard_pairs=200, priority=7)
        waiting = scrape(port)
        assert one(waiting, metrics.JOB_INFO, job.job_id, "7", "running") == 1
        assert one(waiting, metrics.JOB_PAIRS, job.job_id) == 2000
        shards = {labels[1]: n for labels, n in waiting[metrics.JOB_SHARDS.name].items()}
        assert shards == {"unsent": 4, "queued": 6, "running": 0, "done": 0}
        assert one(waiting, metrics.QUEUE, "7", "rankmill.score") == 6
        assert one(waiting, metrics.QUEUE, "none", "rankmill.control") == 0
        wait_for(lambda: one(scrape(port), metrics.JOB_WAITING, job.job_id) > 1)
        worker = start_worker()
        wait_for(lambda: one(scrape(port), metrics.JOB_SHARDS, job.job_id, "running") == 1)
        wait_for(lambda: one(scrape(port), metrics.JOB_DONE, job.job_id) > 0)
        scraped = scrape(port)
        assert one(scraped, metrics.WORKERS) == one(scraped, metrics.REDIS_UP) == 1
        assert one(scraped, metrics.REDIS_USED) > 10**5 and one(scraped, metrics.REDIS_MAX) == 0
        assert set(scraped) == {each.name for each in metrics.OF_CLUSTER}
        job.wait(timeout_s=60)
        wait_for(lambda: metrics.JOB_PAIRS.name not in scrape(port))
        worker.terminate()
        wait_for(lambda: one(scrape(port), metrics.WORKERS) == 0)
        assert worker.wait(30) == 0
        assert ledger().redis.zcard("rankmill:workers") == 0, "a stopped worker would count as lost"


def test_the_exporter_runs_without_redis_and_never_logs_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKMILL_BROKER_URL", "redis://:opensesame@127.0.0.1:9/0")
    with exporting(tmp_path / "exporter.log") as port:
        assert scrape(port) == {metrics.REDIS_UP.name: {(): 0}}
    assert "opensesame" not in (tmp_path / "exporter.log").read_text()


def test_an_exporter_whose_port_is_taken_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("RANKMILL_METRICS_PORT", str(taken.getsockname()[1]))
        command = [sys.executable, "-m", "producer.cli", "exporter"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "RANKMILL_METRICS_PORT" in done.stderr
    assert "Traceback" not in done.stderr
