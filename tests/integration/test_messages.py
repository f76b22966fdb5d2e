"""Malformed and hostile messages: each costs a line in the log, and nothing else."""

from __future__ import annotations

import base64
import json
import pickle
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from producer.jobs.submit import submit
from rankmill.broker import CONTROL_QUEUE, FINALIZE, PREPARE, SCORE_SHARD, SUBMIT, app
from rankmill.ledger.jobs import Ledger
from tests.conftest import StartWorker
from tests.support.inputs import pairs, wait_for, write

JOB = {"job_id": "0123456789ab", "output_uri": "/nowhere"}
SHARD = {**JOB, "shard_index": 0, "n_shards": 1, "start_row": 0, "stop_row": 1}
SPEC = {"input_uri": "/nowhere", "output_uri": "/nowhere-either", "model_id": "null"}


class Bomb:
    """An object that creates a file when it is unpickled."""

    def __init__(self, mark: str) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (Path(self._mark),)


def envelope(body: bytes, name: object = SUBMIT, **changes: Any) -> bytes:
    """Return a message as it is in a queue: Celery's inside kombu's envelope."""
    message = {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": name, "id": str(uuid.uuid4())},
        "properties": {
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": CONTROL_QUEUE},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }
    return json.dumps({**message, **changes}).encode()


def call(name: str, kwargs: object, args: object = ()) -> bytes:
    return envelope(json.dumps([args, kwargs, {}]).encode(), name)


def shard(**changes: object) -> bytes:
    return call(SCORE_SHARD, {"shard": {**SHARD, **changes}})


def spec(**changes: object) -> bytes:
    return call(SUBMIT, {"spec": {**SPEC, **changes}})


BAD = {
    "a shard of version 2": (shard(version=2), "score_shard: has contract version 2"),
    "a shard of version 0": (shard(version=0), "score_shard: shard.version 0 should be"),
    "a shard with an unknown field": (shard(nope=1), "score_shard: unknown option shard.nope"),
    "a shard with a text for a number": (shard(start_row="many"), "shard.start_row '"),
    "a shard that is a list": (call(SCORE_SHARD, {"shard": [1]}), "score_shard: shard ["),
    "a shard with another key for a name": (shard(job_id="a:claim"), "shard.job_id '"),
    "no shard": (call(SCORE_SHARD, {}), "score_shard: shard is missing"),
    "a spec of version 0": (spec(version=0), "submit: version 0 should be"),
    "a spec with an unknown field": (spec(nope=1), "submit: unknown option nope"),
    "a spec with a number for a place": (spec(input_uri=5), "submit: input_uri 5 should be"),
    "a spec that is a text": (call(SUBMIT, {"spec": "x"}), "submit: spec 'x' should be"),
    "an unknown argument": (
        call(SUBMIT, {"spec": SPEC, "force": 1}),
        "unknown option force",
    ),
    "arguments by place": (call(SUBMIT, {}, [SPEC]), "its arguments go by name"),
    "a job that is a number": (
        call(FINALIZE, {**JOB, "job_id": 5}),
        "job_id 5 should be",
    ),
    "a place that is a list": (call(PREPARE, {**JOB, "output_uri": []}), "prepare: output_uri"),
    "a place with a NUL": (call(PREPARE, {**JOB, "output_uri": "/\0"}), "file name"),
    "a half of a character": (
        envelope(b'[[], {"job_id": "0123456789ab", "output_uri": "/\\ud800"}, {}]', PREPARE),
        "output_uri should be a valid string",
    ),
    "a huge message": (spec(input_uri="x" * 3 * 2**20), "larger than 1,048,576 bytes"),
    "an unknown task": (call("os.system", {"command": "id"}), "there is no task os.system"),
    "a task that is not a text": (envelope(b"[[], {}, {}]", ["a"]), "it names no task"),
    "no headers": (envelope(b"[[], {}, {}]", headers={}), "it names no task"),
    "headers that are a text": (envelope(b"[[], {}, {}]", headers="x"), "message refused: Attr"),
    "no id": (envelope(b"[[], {}, {}]", headers={"task": "os.system"}), "it names no task"),
    "a time that is none": (
        envelope(
            json.dumps([[], {"spec": SPEC}, {}]).encode(),
            headers={"task": SUBMIT, "id": "i", "eta": [5]},
        ),
        "invalid ETA",
    ),
    "a body that is a number": (envelope(b"5"), "submit: its body is not JSON"),
    "a body of two": (envelope(b"[1, 2]"), "submit: its body is not JSON"),
    "a body of numbers": (envelope(b"[1, 2, 3]"), "submit: its body is not JSON"),
    "a body cut short": (envelope(b'[[], {"spec"'), "submit: its body is not JSON"),
    "no body": (envelope(b""), "submit: its body is not JSON"),
    "YAML": (
        envelope(b"[[], {}, {}]", **{"content-type": "application/x-yaml"}),
        "application/x-yaml is not accepted, only JSON",
    ),
    "no JSON": (b"*3\r\nnot a message", "message refused"),
    "no envelope": (b"[1]", "message refused"),
    "an empty envelope": (b"{}", "message refused: KeyError: 'properties'"),
}


@pytest.fixture
def log(start_worker: StartWorker, tmp_path: Path) -> Path:
    """Return the log of a worker that is ready."""
    start_worker()
    path = tmp_path / "worker-one.log"
    wait_for(lambda: " ready." in path.read_text())
    return path


def test_a_worker_survives_any_message_and_logs_a_line(
    broker_url: str, log: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "unpickled"
    bad = {
        **BAD,
        "a pickle": (
            envelope(
                pickle.dumps([[], {"spec": Bomb(str(mark))}, {}]),
                **{"content-type": "application/x-python-serialize"},
            ),
            "application/x-python-serialize is not accepted, only JSON",
        ),
    }
    client = redis.Redis.from_url(broker_url.replace("redis+socket://", "unix://"))
    for what, (message, said) in bad.items():
        before = len(log.read_text())
        client.lpush(CONTROL_QUEUE, message)
        wait_for(lambda said=said, before=before: said in log.read_text()[before:], 30)
        lines = [line for line in log.read_text()[before:].splitlines() if said in line]
        assert len(lines) == 1 and len(lines[0]) < 600, (what, lines)
    said_in_all = log.read_text()
    assert "Traceback" not in said_in_all and "Unrecoverable" not in said_in_all
    assert not mark.exists()
    job = submit(write(pairs(2, 2), tmp_path / "in.parquet"), tmp_path / "out", model_id="null")
    assert job.wait(timeout_s=60).state == "succeeded"
    wait_for(lambda: client.llen(CONTROL_QUEUE) == 0 and client.hlen("unacked") == 0, 30)


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
