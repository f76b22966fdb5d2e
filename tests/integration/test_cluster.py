"""Jobs on a running cluster: submitted from Python, by task name, followed, and through faults."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from producer.jobs.submit import submit
from rankmill.errors import BrokerUnavailable, JobFailed
from rankmill.ledger.client import JobKeys
from rankmill.ledger.jobs import Ledger
from rankmill.output.output import Output
from rankmill.settings import settings
from tests.conftest import StartWorker
from tests.support.command import called
from tests.support.inputs import pairs, part_bytes, read_output, wait_for, write
from tests.support.processes import pool_processes

# The code of a pipeline that must not install Rankmill: Celery alone.
FOREIGN = """
import celery, json, sys
app = celery.Celery(broker=sys.argv[1])
app.send_task("rankmill.submit", kwargs=json.loads(sys.argv[2]), queue="rankmill.control")
assert not [name for name in sys.modules if name.split(".")[0] in ("rankmill", "producer")]
"""


def test_submit_wait_and_status_and_the_connections_and_stop_of_a_worker(
    tmp_path: Path, model_folder: Path, start_worker: StartWorker, ledger: Ledger
) -> None:
    ledger.redis.ping()
    earlier = {each["id"] for each in ledger.redis.client_list()}
    worker = start_worker()
    rows = pairs(10, 5)
    job = submit(
        write(rows, tmp_path / "in.parquet"),
        tmp_path / "out",
        model_id=str(model_folder),
        shard_pairs=9,
    )
    status = job.wait(timeout_s=60)
    assert status.state == "succeeded" and status.n_pairs_done == len(rows)
    assert job.output.uri == str(tmp_path / "out")
    for name in (job.job_id, str(tmp_path / "out")):
        said = called("status", name, "--json")
        assert json.loads(said.stdout)["job_id"] == job.job_id, said.stderr
    clients = [each for each in ledger.redis.client_list() if each["id"] not in earlier]
    names = Counter(each["name"] for each in clients if each["cmd"] != "client|list")
    # This process has submitted by a connection or two of its own.
    assert names["rankmill-messages"] == 2, clients
    assert names["rankmill"] <= 4 and set(names) == {"rankmill", "rankmill-messages"}, clients
    stopped_at = time.monotonic()
    worker.terminate()
    worker.wait(30)
    assert time.monotonic() - stopped_at < 8, "it waited for Redis to end its wait for messages"


def test_a_process_without_our_code_submits_by_task_name(
    tmp_path: Path, start_worker: StartWorker, broker_url: str
) -> None:
    start_worker()
    source = write(pairs(4, 5), tmp_path / "in.parquet")
    spec = {
        "input_uri": str(source),
        "output_uri": str(tmp_path / "out"),
        "model_id": "null",
    }
    sent = subprocess.run(
        [sys.executable, "-c", FOREIGN, broker_url, json.dumps({"spec": spec})],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert sent.returncode == 0, sent.stderr
    wait_for(lambda: (tmp_path / "out" / "_SUCCESS").exists())
    assert len(read_output(tmp_path / "out")) == 20


def test_a_job_whose_shard_cannot_be_read_fails_with_the_reason(
    tmp_path: Path, start_worker: StartWorker
) -> None:
    rows = pairs(3, 4)
    source = write([*rows, rows[0]], tmp_path / "in.parquet")
    start_worker()
    job = submit(source, tmp_path / "out", model_id="null")
    with pytest.raises(JobFailed, match="comes again in row 12"):
        job.wait(timeout_s=60)
    assert job.status().state == "failed"


@pytest.mark.parametrize("victim", ["child", "worker"])
def test_a_killed_worker_costs_no_row(
    tmp_path: Path, model_folder: Path, start_worker: StartWorker, victim: str
) -> None:
    rows = pairs(60, 25)
    source = write(rows, tmp_path / "in.parquet")
    first = start_worker("first")
    job = submit(source, tmp_path / "out", model_id=str(model_folder), shard_pairs=75)
    wait_for(lambda: len(job.output.reported_shards()) >= 2)
    if victim == "child":
        for child in pool_processes(first.pid):
            os.kill(child, signal.SIGKILL)
    else:
        os.killpg(first.pid, signal.SIGKILL)
        start_worker("second")
    status = job.wait(timeout_s=90)
    assert status.state == "succeeded"
    assert sorted(r["doc_id"] for r in read_output(tmp_path / "out")) == sorted(
        r["doc_id"] for r in rows
    )
    again = submit(source, tmp_path / "again", model_id=str(model_folder), shard_pairs=75)
    again.wait(timeout_s=60)
    assert part_bytes(tmp_path / "again") == part_bytes(tmp_path / "out")


def test_a_flushed_redis_is_restored_from_storage(
    tmp_path: Path, model_folder: Path, start_worker: StartWorker, ledger: Ledger
) -> None:
    rows = pairs(60, 25)
    source = write(rows, tmp_path / "in.parquet")
    start_worker()
    job = submit(source, tmp_path / "out", model_id=str(model_folder), shard_pairs=75)
    wait_for(lambda: len(job.output.reported_shards()) >= 2)
    ledger.redis.flushall()
    assert job.wait(timeout_s=90).state == "succeeded"
    assert len(read_output(tmp_path / "out")) == len(rows)


def test_a_job_partly_lost_by_redis_is_restored_from_storage(
    tmp_path: Path, start_worker: StartWorker, ledger: Ledger
) -> None:
    source = write(pairs(60, 25), tmp_path / "in.parquet")
    start_worker()
    job = submit(source, tmp_path / "out", model_id="null:1000", shard_pairs=75)
    wait_for(lambda: len(job.output.reported_shards()) >= 2)
    ledger.redis.hdel(JobKeys(job.job_id).hash, "state", "output_uri", "n_shards")
    assert job.wait(timeout_s=90).state == "succeeded"
    assert len(read_output(tmp_path / "out")) == 60 * 25


def test_without_redis_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKMILL_BROKER_URL", "redis://127.0.0.1:9/0")
    settings.cache_clear()
    source = write(pairs(1, 2), tmp_path / "in.parquet")
    try:
        with pytest.raises(BrokerUnavailable, match="RANKMILL_BROKER_URL"):
            submit(source, tmp_path / "out", model_id="null")
    finally:
        settings.cache_clear()
    assert not (tmp_path / "out").exists()


def test_the_status_of_a_folder_needs_no_redis(
    tmp_path: Path, start_worker: StartWorker, ledger: Ledger
) -> None:
    start_worker()
    source = write(pairs(2, 2), tmp_path / "in.parquet")
    submit(source, tmp_path / "out", model_id="null").wait(timeout_s=60)
    ledger.redis.flushall()
    assert Output(str(tmp_path / "out")).state() == "succeeded"


def test_a_job_that_ended_unknown_to_redis_is_ended_there_too(
    tmp_path: Path, start_worker: StartWorker, ledger: Ledger
) -> None:
    source = write(pairs(2, 2), tmp_path / "in.parquet")
    jobs = [submit(source, tmp_path / name, model_id="null") for name in "abc"]
    jobs[0].output.mark_cancelled()
    shutil.rmtree(tmp_path / "b", ignore_errors=True)
    shutil.rmtree(tmp_path / "_rankmill" / "b")
    start_worker()
    assert jobs[2].wait(timeout_s=60).state == "succeeded"
    states = {"a": "cancelled", "b": "failed"}
    for job, state in zip(jobs, states.values(), strict=False):
        wait_for(lambda job=job, state=state: _state_in_redis(ledger, job.job_id) == state, 30)
    wait_for(lambda: ledger.priorities() == {}, 30)


def _state_in_redis(ledger: Ledger, job_id: str) -> str | None:
    counts = ledger.counts(job_id)
    return None if counts is None else str(counts.state)


def test_a_part_removed_before_the_end_is_scored_again(
    tmp_path: Path, start_worker: StartWorker
) -> None:
    rows = pairs(40, 25)
    source = write(rows, tmp_path / "in.parquet")
    job = submit(source, tmp_path / "out", model_id="null:200", shard_pairs=50)
    start_worker()
    wait_for(lambda: len(job.output.reported_shards()) >= 1)
    (tmp_path / "out" / "part-00000.parquet").unlink()
    stray = tmp_path / "out" / "part-00099.parquet"
    write(pairs(1, 1), stray)
    assert job.wait(timeout_s=60).state == "succeeded"
    assert not stray.exists()
    assert len(read_output(tmp_path / "out")) == len(rows)


def test_a_worker_that_does_not_see_the_output_ends_the_job(
    tmp_path: Path, start_worker: StartWorker
) -> None:
    source = write(pairs(3, 4), tmp_path / "in.parquet")
    job = submit(source, tmp_path / "out", model_id="null")
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    (tmp_path / "_rankmill").rename(tmp_path / "on another machine")
    start_worker()
    wait_for(lambda: _state_in_redis(job.ledger, job.job_id) == "failed")
    counts = job.ledger.counts(job.job_id)
    assert counts is not None
    assert re.search(r"every worker must see the same folder.*or use s3://", counts.message)
    assert not (tmp_path / "out").exists()
