"""While Redis refuses commands, workers and beat wait; then they go on by themselves."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from producer.cluster.local import running, start_redis, worker_command
from producer.jobs.submit import submit
from rankmill.ledger.jobs import Ledger
from rankmill.settings import settings
from tests.conftest import forget_settings
from tests.support.inputs import pairs, read_output, wait_for, write
from tests.support.refusals import REFUSALS, refusing

BEAT = [sys.executable, "-m", "celery", "-A", "tasks", "beat", "--pidfile", "", "-l", "INFO"]
NAMES = ("one", "two", "beat")
OUTAGE_S = 2.5


class Cluster:
    """Two workers and a beat on a Redis of their own; each has a log."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in NAMES:
            command = BEAT if name == "beat" else worker_command(name)
            started = running(command, {}, folder / f"{name}.log")
            self.processes[name] = stack.enter_context(started)

    def lines(self, name: str) -> list[dict[str, Any]]:
        text = (self.folder / f"{name}.log").read_text()
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with start_redis() as (url, _), pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        for name, value in {
            **{"BROKER_URL": url, "RECONCILE_S": "0.5", "CLAIM_S": "2", "TICK_S": "1"},
            **{"RUNTIME": str(folder), "THREADS": "1", "LOG_FORMAT": "json"},
        }.items():
            patch.setenv(f"RANKMILL_{name}", value)
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        forget_settings()
        yield Cluster(folder, stack)
    forget_settings()


LONG = [pytest.param(how, marks=pytest.mark.long) for how in REFUSALS]


@pytest.mark.parametrize("how", ["OOM", "READONLY", *LONG[2:]])
def test_a_job_goes_on_by_itself(cluster: Cluster, tmp_path: Path, how: str) -> None:
    source = write(pairs(100, 10), tmp_path / "in.parquet")
    job = submit(source, tmp_path / "out", model_id="null:500", shard_pairs=50)
    ledger = Ledger.connect(settings())
    wait_for(lambda: len(job.output.reported_shards()) >= 4)
    seen = {name: len(cluster.lines(name)) for name in NAMES}
    with refusing(ledger.redis, how):
        time.sleep(OUTAGE_S)
    assert job.wait(timeout_s=60).state == "succeeded"
    ticks = len(_ticks(cluster))
    wait_for(lambda: len(_ticks(cluster)) > ticks, 20)

    assert {name: each.poll() for name, each in cluster.processes.items()} == dict.fromkeys(NAMES)
    rows = Counter((row["query_id"], row["doc_id"]) for row in read_output(tmp_path / "out"))
    assert len(rows) == 1000 and set(rows.values()) == {1}
    for name in NAMES:
        since = cluster.lines(name)[seen[name] :]
        assert not [line for line in since if "exception" in line or line["level"] == "critical"]
        waiting = [line for line in since if line["event"] == "waiting for Redis"]
        assert len(waiting) <= 2, waiting  # a worker is two processes
        assert any(line["event"] == "waiting for Redis" for line in cluster.lines(name))


def _ticks(cluster: Cluster) -> list[dict[str, Any]]:
    return [line for line in cluster.lines("beat") if "Sending due task" in line["event"]]
