"""Cancel, resume, retry rejects, share workers fairly, reject rows that kill a worker."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from producer.jobs.control import cancel, resume, retry_rejects
from producer.jobs.submit import submit
from rankmill.dispatch import window_for
from rankmill.errors import InputError, JobFailed
from rankmill.ledger.jobs import Ledger, ledger
from rankmill.settings import CHECKOUT
from tests.conftest import StartWorker
from tests.support.command import called
from tests.support.inputs import pairs, part_bytes, read_output, read_rejected, wait_for, write
from worker import background as runtime

FAULTS = CHECKOUT / "tests" / "faults"


def test_a_cancelled_job_stops_and_resumes_where_it_stopped(
    tmp_path: Path, model_folder: Path, start_worker: StartWorker
) -> None:
    rows = pairs(200, 25)
    source = write(rows, tmp_path / "in.parquet")
    job = submit(source, tmp_path / "out", model_id=str(model_folder), shard_pairs=100)
    start_worker()
    wait_for(lambda: len(job.output.reported_shards()) >= 2)
    cancel(job)
    wait_for(lambda: job.status().state == "cancelled")
    with pytest.raises(JobFailed, match="cancelled"):
        job.wait(timeout_s=5)
    with pytest.raises(InputError, match="is over: cancelled"):
        cancel(job)
    done = job.output.reported_shards()
    assert len(done) < 50
    assert called("cancel", tmp_path / "out").returncode == 2
    listed = json.loads(called("jobs", "--json").stdout)
    assert [(each["job_id"], each["state"]) for each in listed] == [(job.job_id, "cancelled")]
    before = part_bytes(tmp_path / "out")

    resuming = [threading.Thread(target=resume, args=(job,)) for _ in range(2)]
    for thread in resuming:
        thread.start()
    for thread in resuming:
        thread.join()
    assert job.wait(timeout_s=60).state == "succeeded"
    after = part_bytes(tmp_path / "out")
    assert {name: after[name] for name in before} == before
    assert len(read_output(tmp_path / "out")) == len(rows)


def test_a_lost_job_is_resumed_from_its_output_alone(
    tmp_path: Path, model_folder: Path, start_worker: StartWorker, ledger: Ledger
) -> None:
    source = write(pairs(6, 5), tmp_path / "in.parquet")
    submit(source, tmp_path / "out", model_id=str(model_folder), shard_pairs=5)
    ledger.redis.flushall()
    start_worker()
    said = called("status", tmp_path / "out", "--json")
    assert json.loads(said.stdout)["state"] == "running", said.stderr
    assert called("resume", tmp_path / "out").returncode == 0
    assert called("watch", tmp_path / "out").returncode == 0
    assert len(read_output(tmp_path / "out")) == 30


def test_poison_rows_are_rejected_and_the_rest_is_scored(
    tmp_path: Path,
    model_folder: Path,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(FAULTS))
    monkeypatch.setenv("RANKMILL_TEST_DEADLY_TEXT", "segfault me")
    monkeypatch.setenv("RANKMILL_WINDOW_PAIRS", "4")
    rows = pairs(4, 8)
    rows[13]["document"] = "segfault me, please"
    source = write(rows, tmp_path / "in.parquet")
    sick = start_worker("sick")
    options = {"model_id": str(model_folder), "max_reject_rate": 0.1}
    job = submit(source, tmp_path / "out", shard_pairs=16, **options)
    assert job.wait(timeout_s=200).state == "succeeded with rejects"
    (rejected,) = read_rejected(tmp_path / "out")
    assert (rejected["row"], rejected["reason"]) == (13, "scoring it kills the worker")
    assert len(read_output(tmp_path / "out")) == 31

    monkeypatch.delenv("RANKMILL_TEST_DEADLY_TEXT")
    before = part_bytes(tmp_path / "out")
    os.killpg(sick.pid, signal.SIGKILL)
    start_worker("healthy")
    assert retry_rejects(job) == 1
    assert job.wait(timeout_s=200).state == "succeeded"
    assert read_rejected(tmp_path / "out") == []
    assert part_bytes(tmp_path / "out")["part-00001.parquet"] == before["part-00001.parquet"]


def test_windows_are_in_the_ratio_of_priorities() -> None:
    assert [window_for(p, 12, 24) for p in (9, 3)] == [18, 6]
    assert window_for(5, 5, 6) == 6
    assert window_for(1, 28, 6) == 1


def test_two_jobs_progress_together(tmp_path: Path, start_worker: StartWorker) -> None:
    source = write(pairs(60, 25), tmp_path / "in.parquet")
    options = {"model_id": "null:400", "shard_pairs": 50}
    jobs = [
        submit(source, tmp_path / name, priority=priority, **options)
        for name, priority in (("high", 6), ("low", 3))
    ]
    start_worker()
    wait_for(lambda: len(jobs[0].output.reported_shards()) >= 16)
    high, low = (len(job.output.reported_shards()) for job in jobs)
    assert 1 / 4 <= low / high <= 3 / 4, (high, low)
    for job in jobs:
        job.wait(timeout_s=90)


def test_a_job_known_from_a_message_alone_is_reopened(tmp_path: Path, broker_url: str) -> None:
    job = submit(write(pairs(3, 4), tmp_path / "in.parquet"), tmp_path / "out", model_id="null")
    message = {"shard": job.output.load_job().shard(0).model_dump()}
    job.ledger.redis.flushall()
    runtime.reconciler.cache_clear()
    ledger.cache_clear()
    try:
        runtime.reconciler().scan()
        assert job.ledger.counts(job.job_id) is None
        runtime.remember_job(request=SimpleNamespace(kwargs=message))
        job.ledger.end_turn("reconcile")
        runtime.reconciler().scan()
        counts = job.ledger.counts(job.job_id)
        assert counts is not None and counts.state == "running"
    finally:
        runtime.reconciler.cache_clear()
        ledger.cache_clear()
