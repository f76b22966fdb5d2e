"""Follow docs/upgrading.md: rotate a password, move Redis and change prefixes while a job runs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rankmill.settings import CHECKOUT
from tests.chaos.releases import Release, Workers, checkout, workers_in
from tests.support.inputs import control, pairs, read_output, wait_for, write
from tests.support.redis_server import free_port, redis_server

ROLES = ("WORKER", "PRODUCER", "BEAT", "FLOWER", "MONITOR")
N_ROWS = 480
SLOW = ("--model", "null:40", "--shard-pairs", "16")

pytestmark = pytest.mark.long


@pytest.fixture
def here() -> Release:
    return checkout()


@pytest.fixture
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    monkeypatch.setenv("RANKMILL_CLAIM_S", "4")
    monkeypatch.setenv("RANKMILL_RECONCILE_S", "1")
    monkeypatch.setenv("RANKMILL_RUNTIME", str(tmp_path))
    with workers_in(tmp_path) as started:
        yield started


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(pairs(N_ROWS // 8, 8), tmp_path / "data" / "in.parquet")


def under_way(output: Path) -> None:
    done = control(output) / "shards"
    before = len(list(done.glob("*.json")))
    wait_for(lambda: len(list(done.glob("*.json"))) >= before + 2)
    assert not (output / "_SUCCESS").exists(), "the change would come too late"


def check_done(output: Path) -> None:
    wait_for(lambda: (output / "_SUCCESS").exists(), 90)
    rows = [(row["query_id"], row["doc_id"]) for row in read_output(output)]
    assert len(rows) == len(set(rows)) == N_ROWS


def users(path: Path, password: str, before: str | None = None) -> None:
    """Write Redis's file of users; the worker's password before is valid too, if given."""
    passwords = {f"REDIS_PASSWORD_{role}": "other" for role in ROLES}
    passwords["REDIS_PASSWORD_WORKER"] = password
    render = [str(CHECKOUT / "docker" / "redis" / "render-acl")]
    text = subprocess.run(
        render, env={**os.environ, **passwords}, capture_output=True, text=True, check=True
    ).stdout
    if before is not None:
        first = "user worker reset on "
        text = text.replace(first, f"{first}#{hashlib.sha256(before.encode()).hexdigest()} ")
    path.write_text(text)


def test_a_password_is_rotated_while_a_job_runs(
    here: Release,
    workers: Workers,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port, acl, output = free_port(), tmp_path / "users.acl", tmp_path / "out"
    keeps = ("--appendonly", "yes", "--dir", str(tmp_path), "--aclfile", str(acl))

    def login(user: str, password: str) -> None:
        url = f"redis://{user}:{password}@127.0.0.1:{port}/0"
        monkeypatch.setenv("RANKMILL_BROKER_URL", url)

    users(acl, "first")
    with redis_server("--port", str(port), *keeps):
        login("producer", "other")
        here.rankmill("submit", source, output, *SLOW)
        login("worker", "first")
        workers.start(here, name="one")
        under_way(output)
    users(acl, "second", before="first")
    with redis_server("--port", str(port), *keeps):
        under_way(output)
        login("worker", "second")
        workers.start(here, name="two")
        wait_for(lambda: workers.is_ready("two"))
        workers.terminate("one")
    users(acl, "second")
    with redis_server("--port", str(port), *keeps):
        check_done(output)
        login("worker", "first")
        assert "refuses the login of user worker" in here.rankmill("jobs", code=1)
        workers.quit("two")


def test_a_cluster_moves_to_another_redis_while_a_job_runs(
    here: Release,
    workers: Workers,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output, nights = tmp_path / "out", tmp_path / "nights.toml"
    nights.write_text(
        f'[schedule.nightly]\ncron = "0 3 * * *"\ninput = "{source}"\n'
        f'output = "{tmp_path}/runs"\nmodel = "null"\n'
    )
    with redis_server() as before, redis_server() as after:
        monkeypatch.setenv("RANKMILL_BROKER_URL", f"redis://127.0.0.1:{before}/0")
        here.rankmill("schedule", "apply", nights, "--yes")
        here.rankmill("submit", source, output, *SLOW)
        workers.start(here, name="one")
        under_way(output)
        listed = json.loads(here.rankmill("jobs", "--json"))
        unfinished = [job["output_uri"] for job in listed if job["exit_code"] is None]
        assert unfinished == [str(output)]
        workers.terminate("one")
        monkeypatch.setenv("RANKMILL_BROKER_URL", f"redis://127.0.0.1:{after}/0")
        workers.start(here, name="two")
        here.rankmill("schedule", "apply", nights, "--yes")
        here.rankmill("resume", output)
        check_done(output)
        assert "nightly" in here.rankmill("schedule", "list")
        workers.quit("two")


def test_a_prefix_is_added_to_one_worker_after_the_other(
    here: Release,
    workers: Workers,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "more" / "out"
    with redis_server() as port:
        monkeypatch.setenv("RANKMILL_BROKER_URL", f"redis://127.0.0.1:{port}/0")
        monkeypatch.setenv("RANKMILL_ALLOWED_PREFIXES", str(tmp_path / "data"))
        workers.start(here, name="narrow")
        both = f"{tmp_path}/data,{tmp_path}/more"
        monkeypatch.setenv("RANKMILL_ALLOWED_PREFIXES", both)
        workers.start(here, name="wide")
        wait_for(lambda: all(map(workers.is_ready, ("narrow", "wide"))))
        here.rankmill("submit", source, output, *SLOW)
        check_done(output)
        assert "work declined" in workers.log_path("narrow").read_text()
        for name in ("narrow", "wide"):
            workers.quit(name)
