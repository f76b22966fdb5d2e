"""Workers keep their loaded model while its shards wait, and no other job starves."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest

from producer.cluster.local import running
from producer.jobs.handle import JobHandle
from producer.jobs.submit import submit
from rankmill.ledger.jobs import Ledger
from rankmill.output.output import Job, Output
from rankmill.settings import Settings
from tests.support.inputs import pairs, read_output, write
from worker import models
from worker.preference import Preference

_N_SHARDS = 12

Serve = Callable[..., Path]


@pytest.fixture
def serve(broker_url: str, tmp_path: Path) -> Iterator[Serve]:
    """Start a worker and return the path of its log."""
    with ExitStack() as stack:

        def start(name: str, **environment: str) -> Path:
            log = tmp_path / f"{name}.log"
            command = [sys.executable, "-m", "producer.cli", "worker", "--name", name]
            options = {"RANKMILL_DEVICE": "cpu", "RANKMILL_THREADS": "1", **environment}
            stack.enter_context(running(command, options, log))
            return log

        yield start


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(pairs(_N_SHARDS, 10), tmp_path / "in.parquet", row_group_size=10)


def loads(log: Path) -> list[str]:
    """Return the models that a worker loaded, in order."""
    return re.findall(r"model loaded.*?(null:\d+)", log.read_text())


def finish(*jobs: JobHandle) -> None:
    for job in jobs:
        assert job.wait(timeout_s=60).state == "succeeded"


def test_two_jobs_on_one_worker_take_turns_by_model_not_by_shard(
    tmp_path: Path, source: Path, serve: Serve
) -> None:
    jobs = [
        submit(source, tmp_path / model[-3:], model_id=model, shard_pairs=10)
        for model in ("null:900", "null:901")
    ]
    log = serve("one")
    finish(*jobs)
    assert loads(log) == ["null:900", "null:901"]


def test_two_workers_settle_on_a_model_each(tmp_path: Path, source: Path, serve: Serve) -> None:
    jobs = [
        submit(source, tmp_path / model[-3:], model_id=model, shard_pairs=10)
        for model in ("null:200", "null:201")
    ]
    logs = [serve("one"), serve("two")]
    finish(*jobs)
    assert max(len(loads(log)) for log in logs) <= 2
    for name in ("200", "201"):
        assert len(read_output(tmp_path / name)) == 10 * _N_SHARDS


def test_no_job_waits_for_longer_than_a_turn(tmp_path: Path, source: Path, serve: Serve) -> None:
    turn_s = 0.5
    jobs = [
        submit(source, tmp_path / model[-3:], model_id=model, shard_pairs=10)
        for model in ("null:35", "null:36", "null:37")
    ]
    log = serve("one", RANKMILL_MODEL_TURN_S=str(turn_s))
    finish(*jobs)
    started: dict[str, list[float]] = {}
    for line in log.read_text().splitlines():
        if line.startswith("{") and (event := json.loads(line))["event"] == "shard started":
            at = datetime.fromisoformat(event["timestamp"]).timestamp()
            started.setdefault(event["job_id"], []).append(at)
    assert sorted(map(len, started.values())) == [_N_SHARDS] * 3
    began = min(min(times) for times in started.values())
    waits = [b - a for times in started.values() for a, b in pairwise([began, *times])]
    # Redis has whole seconds, and two other jobs have shards before it in the queue.
    assert max(waits) < 3 * turn_s + 3.5
    assert len(loads(log)) < 3 * _N_SHARDS * 2 / 3


def planned(folder: Path) -> Job:
    return Output(str(folder)).load_job()


@pytest.fixture
def two_jobs(tmp_path: Path, source: Path, broker_url: str) -> tuple[Job, Job]:
    """Return two jobs of different models whose shards wait, the first model being loaded."""
    for model, priority in (("null:900", 3), ("null:901", 9)):
        folder = tmp_path / model[-3:]
        submit(source, folder, model_id=model, shard_pairs=10, priority=priority)
    models.load(planned(tmp_path / "900").spec)
    return planned(tmp_path / "900"), planned(tmp_path / "901")


def test_a_search_for_shards_of_the_loaded_model_ends(
    two_jobs: tuple[Job, Job], ledger: Ledger
) -> None:
    held, other = two_jobs
    preference = Preference(ledger, turn_s=60)
    assert not preference.is_for_later(other.job_id, other.spec, 0)  # nothing was scored yet
    preference.loaded(held.job_id, held.spec)
    assert not preference.is_for_later(held.job_id, held.spec, 0)
    found = [preference.is_for_later(other.job_id, other.spec, 0) for _ in range(40)]
    assert found == [True] * 32 + [False] * 8
    preference.loaded(held.job_id, held.spec)
    assert preference.is_for_later(other.job_id, other.spec, 0)
    ledger.redis.delete("rankmill.score")
    assert not preference.is_for_later(other.job_id, other.spec, 0)  # nothing else waits


def test_a_turn_is_shorter_against_a_higher_priority(
    two_jobs: tuple[Job, Job], ledger: Ledger
) -> None:
    held, other = two_jobs
    preference = Preference(ledger, turn_s=9)
    preference.loaded(held.job_id, held.spec)
    assert preference.is_for_later(other.job_id, other.spec, 0)
    ledger.redis.hset(f"rankmill:job:{other.job_id}", "progress_at", "broken")
    ledger.redis.zadd(f"rankmill:job:{other.job_id}:inflight", {"0": ledger.now() - 1})
    assert preference.is_for_later(other.job_id, other.spec, 0)
    ledger.redis.zadd(f"rankmill:job:{other.job_id}:inflight", {"0": ledger.now() - 5})
    assert not preference.is_for_later(other.job_id, other.spec, 0)


def test_a_shard_of_the_loaded_model_costs_redis_nothing(two_jobs: tuple[Job, Job]) -> None:
    held, _ = two_jobs
    nowhere = Settings(broker_url="redis://127.0.0.1:9/0")
    preference = Preference(Ledger.connect(nowhere), turn_s=60)
    preference.loaded(held.job_id, held.spec)
    assert not preference.is_for_later(held.job_id, held.spec, 0)
