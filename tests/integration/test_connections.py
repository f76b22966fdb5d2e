"""A worker's connections to Redis, what it asks while idle, and how soon it stops."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

from producer.jobs.submit import submit
from rankmill.ledger.jobs import Ledger
from tests.conftest import StartWorker
from tests.support.inputs import pairs, wait_for, write


def test_a_worker_has_four_connections_after_a_job(
    tmp_path: Path, ledger: Ledger, start_worker: StartWorker
) -> None:
    mine = _ids(ledger)
    worker = start_worker()
    wait_for(lambda: ledger.workers.n_live() == 1, within_s=60)
    output = tmp_path / "out"
    source = write(pairs(12, 5), tmp_path / "in.parquet")
    job = submit(source, output, model_id="null", shard_pairs=5)
    job.wait(timeout_s=60)
    theirs = [each for each in ledger.redis.client_list() if each["id"] not in mine]
    names = Counter(each["name"] for each in theirs if each["cmd"] != "client|list")
    # This process has submitted by a connection or two of its own.
    assert names["rankmill-messages"] == 2, theirs
    assert names["rankmill"] <= 4 and set(names) == {"rankmill", "rankmill-messages"}, theirs
    stopped_at = time.monotonic()
    worker.terminate()
    worker.wait(30)
    assert time.monotonic() - stopped_at < 8, "it waited for Redis to end its wait for messages"


def _ids(ledger: Ledger) -> set[Any]:
    ledger.redis.ping()
    return {each["id"] for each in ledger.redis.client_list()}
