"""Malformed and hostile messages: each costs a line in the log, and nothing else."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import redis

from producer.jobs.submit import submit
from rankmill.broker import CONTROL_QUEUE, PREPARE, SUBMIT, app
from rankmill.ledger.jobs import Ledger
from tests.conftest import StartWorker
from tests.support.inputs import pairs, wait_for, write
from tests.support.messages import BAD
from tests.support.remote_control import COMMANDS

HOST = socket.gethostname()


UNACKED = (b"x", b"5", b"[1]", b'[{}, "", "rankmill.score"]', b"[" * 10_000, b"\xff\xfe")


def test_a_worker_survives_any_message_and_logs_a_line(
    broker_url: str, start_worker: StartWorker, tmp_path: Path
) -> None:
    client = redis.Redis.from_url(broker_url.replace("redis+socket://", "unix://"))
    for number, entry in enumerate(UNACKED):  # restored when a worker connects
        client.hset("unacked", f"tag-{number}", entry)
        client.zadd("unacked_index", {f"tag-{number}": 1})
    client.sadd("_kombu.binding.reply.celery.pidbox", "garbage")
    worker = start_worker()
    log = tmp_path / "worker-one.log"
    wait_for(lambda: " ready." in log.read_text())
    for message, _ in BAD.values():
        client.lpush(CONTROL_QUEUE, message)
    for content, _ in COMMANDS.values():
        client.publish("/0.celery.pidbox", content)
    job = submit(write(pairs(2, 2), tmp_path / "in.parquet"), tmp_path / "out", model_id="null")
    assert job.wait(timeout_s=60).state == "succeeded"
    assert app().control.ping(timeout=10, limit=1) == [{f"one@{HOST}": {"ok": "pong"}}]
    wait_for(lambda: client.llen(CONTROL_QUEUE) == 0 and client.hlen("unacked") == 0, 30)
    assert client.zcard("unacked_index") == 0 and worker.poll() is None
    events = [json.loads(line)["event"] for line in log.read_text().splitlines() if line[:1] == "{"]
    lines = [event for event in events if event.startswith("message refused: ")]
    assert len(lines) == len(BAD) + len(COMMANDS) + len(UNACKED)
    for what, (_, said) in [*BAD.items(), *COMMANDS.items()]:
        assert [line for line in lines if said in line], what
    assert max(map(len, lines)) <= 320
    said_in_all = log.read_text()
    assert "Traceback" not in said_in_all and "Unrecoverable" not in said_in_all
    assert said_in_all.count(" ready.") == 1
    assert not Path("/tmp/rankmill-unpickled").exists()


def test_a_job_outside_of_the_allowed_prefixes_ends_and_others_go_on(
    tmp_path: Path, start_worker: StartWorker, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(pairs(2, 2), tmp_path / "ok" / "in.parquet")
    outside = submit(source, tmp_path / "out", model_id="null")
    good = submit(source, tmp_path / "ok" / "out", model_id="null")
    edited = submit(source, tmp_path / "ok" / "edited", model_id="null")
    secret = write(pairs(2, 2), tmp_path / "secret.parquet")
    plan = tmp_path / "ok" / "_rankmill" / "edited" / "plan.json"
    plan.write_text(plan.read_text().replace(str(source), str(secret)))
    monkeypatch.setenv("RANKMILL_ALLOWED_PREFIXES", str(tmp_path / "ok"))
    start_worker()
    # It only claims to be of the good job.
    app().send_task(PREPARE, kwargs={"job_id": good.job_id, "output_uri": "/etc"})
    assert good.wait(timeout_s=60).state == "succeeded"
    for job in (outside, edited):
        wait_for(lambda job=job: _state(ledger, job.job_id) == "failed", 30)
        counts = ledger.counts(job.job_id)
        assert counts is not None and "RANKMILL_ALLOWED_PREFIXES" in counts.message
    assert not list((tmp_path / "out").glob("part-*"))
    assert edited.status().message.startswith(str(secret))
    wait_for(lambda: ledger.priorities() == {}, 30)


def test_a_worker_refuses_a_bad_job_submitted_by_name(
    tmp_path: Path, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(pairs(2, 2), tmp_path / "ok" / "in.parquet")
    monkeypatch.setenv("RANKMILL_ALLOWED_PREFIXES", str(tmp_path / "ok"))
    monkeypatch.setenv("RANKMILL_ALLOWED_MODELS", "null")
    start_worker()
    good = {"input_uri": str(source), "output_uri": f"{tmp_path}/ok/out", "model_id": "null"}
    run = {"layout": "run", "queries": str(source), "corpus": str(source)}
    wrong = {
        "input_uri": {"input_uri": str(write(pairs(1, 1), tmp_path / "secret.parquet"))},
        "a part of the input": {"input_uri": f"{source},{tmp_path}/secret.parquet"},
        "output_uri": {"output_uri": f"{tmp_path}/out"},
        "queries": {**run, "queries": f"{tmp_path}/secret.parquet"},
        "corpus": {**run, "corpus": f"{tmp_path}/ok/../secret.parquet"},
        "model_id": {"model_id": "demo"},
    }
    log = tmp_path / "worker-one.log"
    wait_for(log.exists)
    for field, change in wrong.items():
        before = len(log.read_text())
        app().send_task(SUBMIT, kwargs={"spec": {**good, **change}})
        wait_for(lambda before=before: "RANKMILL_ALLOWED_" in log.read_text()[before:], 60)
        said = log.read_text()[before:]
        setting = "MODELS" if field == "model_id" else "PREFIXES"
        assert f"RANKMILL_ALLOWED_{setting}" in said and "Traceback" not in said, field
    assert not (tmp_path / "ok" / "out").exists() and not (tmp_path / "out").exists()


def _state(ledger: Ledger, job_id: str) -> str | None:
    counts = ledger.counts(job_id)
    return None if counts is None else str(counts.state)
