"""`rankmill doctor` on set-ups that are right and on set-ups with one thing wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from producer.doctor.broker import check_redis
from producer.doctor.examine import examine
from producer.doctor.finding import Finding
from rankmill.settings import settings
from tests.support.command import rankmill
from tests.support.inputs import everything_under, pairs, write
from tests.support.nights import FIRST, Nights


@pytest.fixture
def sound(broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything right, in an allowed folder that is returned."""
    folder = tmp_path / "allowed"
    folder.mkdir()
    for name, value in {
        "ALLOWED_PREFIXES": str(folder),
        "ALLOWED_MODELS": "demo",
        "THREADS": "1",
        "SCRATCH": str(tmp_path),
    }.items():
        monkeypatch.setenv(f"RANKMILL_{name}", value)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # as the doctor sets it, and no longer than the test
    settings.cache_clear()
    return folder


def bad(findings: list[Finding]) -> dict[str, Finding]:
    return {each.name: each for each in findings if each.state != "ok" and each.name != "scratch"}


def client(broker_url: str) -> redis.Redis:
    return redis.Redis.from_url(broker_url.replace("redis+socket://", "unix://"))


def test_a_sound_machine_has_no_problem_and_nothing_is_left_behind(sound: Path) -> None:
    done = rankmill("doctor")
    assert done.returncode == 0 and done.stderr == "", done.stdout
    for name in ("versions", "devices", "redis", "model demo", f"prefix {sound}", "scratch"):
        assert f" {name} " in done.stdout
    found: list[dict[str, Any]] = json.loads(rankmill("doctor", "--json").stdout)
    assert {each["state"] for each in found} <= {"ok", "warning"}
    assert all(each["fix"] for each in found if each["state"] != "ok")
    assert everything_under(sound) == []


def test_a_machine_without_a_cluster_has_no_problem(
    sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANKMILL_BROKER_URL")
    done = rankmill("doctor", "--json")
    findings = json.loads(done.stdout)
    assert done.returncode == 0, findings
    (of_redis,) = [each for each in findings if each["name"].startswith("redis")]
    assert of_redis["state"] == "warning" and "no cluster is set" in of_redis["message"]
    assert not [each for each in findings if each["name"].startswith(("workers", "schedule"))]


@pytest.mark.parametrize(
    ("variable", "value", "name", "state", "message"),
    [
        ("THREADS", "9999", "threads", "problem", "RANKMILL_THREADS=9999"),
        ("THREADS", "many", "settings", "problem", "RANKMILL_THREADS: "),
        ("BROKER_URL", "rediss://127.0.0.1:9/0", "redis", "problem", "does not answer"),
        ("SCRATCH", "/nowhere", "scratch", "problem", "/nowhere: No such file"),
        ("BROKER_URL", "redis://:s3cr3t@127.0.0.1:9/0", "redis", "problem", "does not answer"),
        ("BROKER_URL", "rediss://h/0?ssl_cert_reqs=none", "settings", "problem", "certificates"),
        ("ALLOWED_PREFIXES", "data", "settings", "problem", "RANKMILL_ALLOWED_PREFIXES: data is"),
        ("ALLOWED_PREFIXES", "/sys", "prefix /sys", "warning", "read-only"),
        ("ALLOWED_MODELS", "some/model", "model some/model", "problem", "some/model"),
        ("ALLOWED_MODELS", "/nowhere", "model /nowhere", "problem", "no such model folder"),
        ("REMOTE_CODE_MODELS", "a/b", "model a/b", "warning", "Python code may run"),
    ],
)
def test_a_problem_is_named_with_its_fix(
    sound: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    name: str,
    state: str,
    message: str,
) -> None:
    monkeypatch.setenv(f"RANKMILL_{variable}", value)
    settings.cache_clear()
    findings = {each.name: each for each in examine()}
    assert "s3cr3t" not in str(findings)
    assert findings[name].state == state and message in findings[name].message
    assert findings[name].fix and "\n" not in findings[name].fix


def test_a_redis_that_would_throw_work_away_is_a_problem(sound: Path, broker_url: str) -> None:
    try:
        client(broker_url).config_set("maxmemory-policy", "allkeys-lru")
        done = rankmill("doctor", "--json")
    finally:
        client(broker_url).config_set("maxmemory-policy", "noeviction")
    assert done.returncode == 1
    (found,) = [each for each in json.loads(done.stdout) if each["name"] == "redis policy"]
    assert found["state"] == "problem" and "noeviction" in found["fix"]


def test_a_redis_without_append_only_file_is_a_warning(sound: Path) -> None:
    assert bad(examine())["redis keeps"].state == "warning"
    assert "submitted jobs wait" in bad(examine())["workers"].message


@pytest.mark.parametrize(
    ("key", "leave", "state"),
    [
        ("unacked", lambda its: its.hset("unacked", "tag", "[]"), "warning"),
        ("unacked", lambda its: its.lpush("unacked", "x"), "problem"),
        ("unacked_index", lambda its: its.zadd("unacked_index", {"tag": 1.7e9}), "warning"),
        ("unacked_index", lambda its: its.set("unacked_index", "x"), "problem"),
        ("unacked_mutex", lambda its: its.set("unacked_mutex", "x"), "problem"),
        ("unacked_mutex", lambda its: its.sadd("unacked_mutex", "x"), "problem"),
        ("_kombu.binding.celeryev", lambda its: its.set("_kombu.binding.celeryev", 1), "problem"),
    ],
)
def test_a_key_of_celery_that_keeps_messages_from_workers_is_named(
    sound: Path, broker_url: str, key: str, leave: Callable[[redis.Redis], object], state: str
) -> None:
    asked = client(broker_url)
    asked.hset("unacked", "taken", "[]")
    asked.zadd("unacked_index", {"taken": time.time()})
    asked.set("unacked_mutex", "x", ex=300)
    assert [each for each in check_redis(settings()) if each.name == "redis keys"] == []
    if state == "problem":
        asked.delete(key)
    leave(asked)
    (found,) = (each for each in check_redis(settings()) if each.name == "redis keys")
    assert found.state == state and key in found.message
    assert found.fix and "\n" not in found.fix


def test_a_prefix_that_is_not_there_is_a_problem(sound: Path) -> None:
    sound.rmdir()
    sound.write_text("a file")
    assert bad(examine())[f"prefix {sound}"].state == "problem"


def test_a_store_is_asked_for_conditional_puts(
    s3: str, sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKMILL_ALLOWED_PREFIXES", f"{s3}/jobs/,s3://no-such-bucket")
    settings.cache_clear()
    findings = {each.name: each for each in examine()}
    assert findings[f"prefix {s3}/jobs/"].state == "ok"
    missing = findings["prefix s3://no-such-bucket"]
    assert missing.state == "problem" and "there is no such bucket" in missing.message


def test_schedules_that_do_not_run_are_named(sound: Path, nights: Nights) -> None:
    def schedules() -> list[Finding]:
        return [each for each in examine() if each.name.startswith("schedule")]

    assert schedules() == []
    nights.output = sound / "out"
    job = {"model_id": "demo", "input_uri": str(write(pairs(1, 2), sound / "in.parquet"))}
    nights.add(job=job)
    (fine,) = schedules()
    assert fine.state == "ok" and fine.message.startswith("1;")
    nights.add(job=job, paused=True)
    paused = bad(schedules())["schedule nightly"]
    assert "is paused" in paused.message and "schedule resume nightly" in paused.fix
    nights.store.write([nights.spec(job={**job, "model_id": "not/allowed"})], {})
    refused = bad(schedules())["schedule nightly"]
    assert "would not be submitted" in refused.message and "not/allowed" in refused.message
    nights.add(job=job)
    (sound / "in.parquet").unlink()
    nights.tick(FIRST)
    (gone, missed, _) = schedules()
    assert "would not be submitted" in gone.message and "in.parquet" in gone.message
    assert "2026-11-21 01:15 UTC was not submitted" in missed.message
    assert "in.parquet" in missed.message and "history nightly" in missed.fix
