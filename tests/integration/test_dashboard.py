"""Flower in a real browser, before real workers in the middle of a job."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from producer.jobs.handle import JobHandle
from producer.jobs.submit import submit
from rankmill.settings import CHECKOUT
from tests.conftest import StartWorker
from tests.support.browser import chromium
from tests.support.command import called
from tests.support.dashboard import LOGIN, ask, flower, rows, with_login
from tests.support.inputs import control, pairs, read_output, wait_for, write

HOST = socket.gethostname()
SHARD_PAIRS = 250
WIDTH = 1500


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a worker report its progress often: after each window of 25 pairs."""
    monkeypatch.setenv("RANKMILL_WINDOW_PAIRS", "25")


def long_job(tmp_path: Path, pairs_per_s: int) -> JobHandle:
    """Submit 40 shards of 250 pairs, which run longer than any test."""
    source = write(pairs(200, 50), tmp_path / "in.parquet")
    return submit(source, tmp_path / "out", model_id=f"null:{pairs_per_s}", shard_pairs=SHARD_PAIRS)


def test_workers_and_shards_are_seen_while_they_score(
    tmp_path: Path, start_worker: StartWorker
) -> None:
    with flower(tmp_path) as url, chromium(WIDTH) as driver:
        for name in ("cuda0", "cuda1"):
            start_worker(name)
        job = long_job(tmp_path, pairs_per_s=100)
        driver.get(with_login(url))
        workers = {f"cuda0@{HOST}", f"cuda1@{HOST}"}
        wait_for(
            lambda: (
                {row["Worker"] for row in rows(driver, "workers-table") if at_work(row)} == workers
            )
        )

        def shown(state: str) -> list[dict[str, str]]:
            driver.get(f"{url}/tasks")
            wait_for(lambda: any("State" in row for row in rows(driver, "tasks-table")))
            return [row for row in rows(driver, "tasks-table") if row.get("State") == state]

        wait_for(lambda: shown("SCORING") and shown("SUCCESS"))
        pattern = re.compile(rf"shard \d+ of 40, {SHARD_PAIRS} pairs, null:100, job {job.job_id}")
        for state in ("SCORING", "SUCCESS"):
            for row in shown(state):
                assert row["Name"] == "rankmill.score_shard"
                assert pattern.fullmatch(row["kwargs"]), row
                assert row["Worker"] in workers
                result = rf"\d+ of {SHARD_PAIRS} pairs"
                if state == "SUCCESS":
                    result = rf"'{SHARD_PAIRS} pairs scored, {SHARD_PAIRS} tokens'"
                assert re.fullmatch(result, row["Result"]), row
    assert str(tmp_path) not in json.dumps(rows_of_log(tmp_path / "flower.log"))


def at_work(row: dict[str, str]) -> bool:
    return row.get("Status") == "Online" and row["Active"] == "1"


def rows_of_log(log: Path) -> list[dict[str, Any]]:
    """Flower's lines are JSON too, and none shows a login."""
    text = log.read_text()
    assert LOGIN.partition(":")[2] not in text
    return [json.loads(line) for line in text.splitlines()]


def test_a_wrong_password_gets_nothing(tmp_path: Path, start_worker: StartWorker) -> None:
    start_worker()
    wrong = LOGIN[:-1]
    with flower(tmp_path) as url, chromium(WIDTH) as driver:
        wait_for(lambda: f"one@{HOST}" in ask(f"{url}/workers?json=1")[1])
        for login in (wrong, None, "", "night-shift:"):
            for page in ("", "/workers?json=1", "/tasks", "/broker", f"/worker/one@{HOST}"):
                assert ask(url + page, login) == (401, "Access denied"), page
            for page in ("/api/workers", "/api/tasks", "/api/queues/length"):
                status, text = ask(url + page, login)
                assert status == 401 and HOST not in text, page
            assert ask(f"{url}/api/task/send-task/rankmill.submit", login, {})[0] == 401
        driver.get(with_login(url, wrong))
        assert "Online workers" not in driver.page_source and HOST not in driver.page_source
        driver.get(with_login(url))
        wait_for(lambda: f"one@{HOST}" in driver.page_source)
        # Open by Flower's design, for Prometheus and health checks: numbers, no arguments.
        assert ask(f"{url}/healthcheck", None) == (200, "OK")
        status, metrics = ask(f"{url}/metrics", None)
        assert status == 200 and "flower_worker_online" in metrics


def test_read_only_refuses_every_change(tmp_path: Path, start_worker: StartWorker) -> None:
    worker = start_worker()
    job = long_job(tmp_path, pairs_per_s=1)
    wait_for(lambda: "shard started" in (tmp_path / "worker-one.log").read_text())
    with flower(tmp_path) as url, chromium(WIDTH) as driver:
        wait_for(lambda: f"one@{HOST}" in ask(f"{url}/api/workers?refresh=1")[1])
        # Flower was not there when the shard was received; its progress names it.
        (task,) = wait_for_tasks(url, "SCORING")
        assert task["name"] == "rankmill.score_shard"
        assert task["kwargs"] == f"shard 1 of 40, {SHARD_PAIRS} pairs, null:1, job {job.job_id}"
        for path in (
            *(f"worker/shutdown/one@{HOST}", f"worker/pool/grow/one@{HOST}"),
            *("task/send-task/rankmill.submit", "task/async-apply/rankmill.submit"),
            *("task/apply/rankmill.submit", "task/revoke/x", f"worker/pool/restart/one@{HOST}"),
        ):
            assert ask(f"{url}/api/{path}", post={})[0] == 403, path
        driver.get(with_login(f"{url}/worker/one@{HOST}"))
        wait_for(lambda: "rankmill.score_shard" in driver.page_source)
        assert not re.search("Shut ?down|Pool controls", driver.page_source, re.IGNORECASE)
        assert worker.poll() is None


def wait_for_tasks(url: str, state: str) -> list[dict[str, Any]]:
    def tasks() -> list[dict[str, Any]]:
        return list(json.loads(ask(f"{url}/api/tasks?state={state}")[1]).values())

    wait_for(tasks)
    return tasks()


def test_a_job_is_submitted_over_rest_if_allowed(
    tmp_path: Path, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWER_URL_PREFIX", "elsewhere")  # only ours counts
    monkeypatch.setenv("FLOWER_BASIC_AUTH", "somebody:else-who-is-not-ours")
    start_worker()
    source = write(pairs(4, 5), tmp_path / "in.parquet")
    history = tmp_path / "history"
    sent = {}
    with flower(tmp_path, "--allow-control", "--history", str(history)) as url:
        for way in ("async-apply", "send-task"):
            output = tmp_path / way
            spec = {"input_uri": str(source), "output_uri": str(output), "model_id": "null"}
            status, text = ask(
                f"{url}/api/task/{way}/rankmill.submit", post={"kwargs": {"spec": spec}}
            )
            assert status == 200, text
            sent[way] = json.loads(text)["task-id"]
            wait_for((output / "_SUCCESS").exists)
            assert len(read_output(output)) == 20
            record = json.loads((control(output) / "job.json").read_text())
            wait_for(partial(shows, url, sent[way], "result", f"'job {record['job_id']}'"))
        refused = {"input_uri": "/nowhere", "output_uri": str(tmp_path / "refused")}
        path = f"{url}/api/task/async-apply/rankmill.submit"
        failed = json.loads(ask(path, post={"kwargs": {"spec": refused}})[1])["task-id"]
        wait_for(partial(shows, url, failed, "state", "FAILURE"))
        assert shows(url, failed, "exception", "/nowhere")
        assert ask(f"{url}/api/tasks", "somebody:else-who-is-not-ours")[0] == 401
    with flower(tmp_path, "--history", str(history)) as url:
        assert set(sent.values()) <= set(json.loads(ask(f"{url}/api/tasks")[1]))


def shows(url: str, task_id: str, name: str, value: str) -> bool:
    status, text = ask(f"{url}/api/task/info/{task_id}")
    return status == 200 and value in (json.loads(text)[name] or "")


@pytest.mark.parametrize(
    ("logins", "said"),
    [
        (None, "RANKMILL_FLOWER_BASIC_AUTH is not set"),
        ("", "login 1 is not user:password"),
        ("admin", "login 1 is not user:password"),
        ("admin:short", "login 1 has a password that is easily guessed"),
        ("ann:long-enough-here,bob:has,comma-in-it", "login 2 has a password that is easily"),
        ("ann:long-enough-here,comma-in-it", "login 2 is not user:password"),
        ("operator:operator", "easily guessed"),
        ("ann:pässwörter-hier", "ASCII"),
    ],
)
def test_flower_does_not_start_without_a_password(
    monkeypatch: pytest.MonkeyPatch, logins: str | None, said: str
) -> None:
    monkeypatch.setenv("FLOWER_BASIC_AUTH", "somebody:else-who-is-not-ours")
    monkeypatch.delenv("RANKMILL_FLOWER_BASIC_AUTH", raising=False)
    if logins is not None:
        monkeypatch.setenv("RANKMILL_FLOWER_BASIC_AUTH", logins)
    done = called("flower", "--port", "0")
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    for secret in ("long-enough", "short", "comma-in", "pässw", "who-is-not-ours"):
        assert secret not in done.stderr


def test_a_missing_package_or_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKMILL_FLOWER_BASIC_AUTH", LOGIN)
    done = called("flower", "--port", "0", "--history", tmp_path / "nowhere" / "history")
    assert done.returncode == 2 and "is not a writable folder" in done.stderr
    code = (
        "import sys; sys.modules['flower'] = None; sys.argv[1:] = ['flower', '--port', '0']\n"
        "from producer.cli.app import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=CHECKOUT
    )
    assert done.returncode == 2 and "Flower is not installed: pip install" in done.stderr
