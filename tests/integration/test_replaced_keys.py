"""A key of Celery's messages that something replaced: workers name it, wait and go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from producer.cluster.local import running, start_redis, worker_command
from producer.doctor.broker import check_redis
from producer.jobs.submit import submit
from rankmill.ledger.client import connect
from rankmill.settings import settings
from tests.conftest import forget_settings
from tests.support.inputs import pairs, wait_for, write


@pytest.fixture
def own_redis() -> Iterator[None]:
    with start_redis() as (url, _), pytest.MonkeyPatch.context() as patch:
        variables = {"BROKER_URL": url, "RECONCILE_S": "0.5", "THREADS": "1", "LOG_FORMAT": "json"}
        for name, value in variables.items():
            patch.setenv(f"RANKMILL_{name}", value)
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        forget_settings()
        yield
    forget_settings()


@pytest.mark.parametrize(
    "key", ["rankmill.score", "unacked_index", pytest.param("unacked", marks=pytest.mark.long)]
)
def test_a_worker_names_a_replaced_key_and_goes_on_without_it(
    own_redis: None, tmp_path: Path, key: str
) -> None:
    client, log = connect(settings()), tmp_path / "worker.log"
    source = write(pairs(4, 5), tmp_path / "in.parquet")
    job = submit(source, tmp_path / "out", model_id="null", shard_pairs=10)
    client.delete(key)
    client.set(key, "not Celery's")
    found = [each.message for each in check_redis(settings()) if each.name == "redis keys"]
    assert [key in message for message in found] == [True]
    with running(worker_command("one"), {}, log) as worker:
        wait_for(lambda: f"DEL {key}" in log.read_text(), 30)
        assert worker.poll() is None
        client.delete(key)
        assert job.wait(timeout_s=40).state == "succeeded"
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    waits = [line for line in lines if line["event"] == "waiting for Redis"]
    assert len(waits) <= 2 and not [line for line in lines if "exception" in line]
    assert not [line for line in lines if "CPendingDeprecation" in line["event"]]
