"""Broken entries in Redis and broken control files: one line for each, and no other job stops."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from producer.cluster.exporter import ClusterMetrics
from producer.cluster.snapshot import Surveyor
from producer.jobs.handle import JobHandle
from producer.jobs.listing import list_jobs
from producer.jobs.submit import submit
from rankmill.contract.job_state import JobState
from rankmill.dispatch import Dispatcher
from rankmill.ledger.jobs import Ledger
from rankmill.reconcile import Reconciler
from tests.support.inputs import pairs, write
from tests.support.nights import FIRST, Nights
from tests.support.scored import scored
from worker.finalize import finalize

Break = Callable[[Ledger, JobHandle], object]


def _job(folder: Path, name: str) -> JobHandle:
    source = write(pairs(4, 5), folder / "in.parquet")
    return submit(source, folder / name, model_id="null", shard_pairs=5)


def _set(field: str, value: str) -> Break:
    return lambda ledger, job: ledger.redis.hset(f"rankmill:job:{job.job_id}", field, value)


def _retyped(suffix: str) -> Break:
    def retype(ledger: Ledger, job: JobHandle) -> None:
        key = f"rankmill:job:{job.job_id}{suffix}"
        ledger.redis.delete(key)
        ledger.redis.lpush(key, "of another type")

    return retype


def _special(name: str) -> Break:
    def replace(ledger: Ledger, job: JobHandle) -> None:
        path = Path(job.output.control_file(name))
        path.unlink()
        os.mkfifo(path)

    return replace


def _edited(**changes: object) -> Break:
    def edit(ledger: Ledger, job: JobHandle) -> None:
        plan = Path(job.output.control_file("plan.json"))
        plan.write_text(json.dumps({**json.loads(plan.read_text()), **changes}))

    return edit


HEALED: dict[str, Break] = {
    "an unknown state": _set("state", "banana"),
    "a count that is a text": _set("n_rows", "many"),
    "a negative count": _set("n_shards_done", "-1"),
    "a count beyond bounds": _set("n_tokens", "9" * 40),
    "a count of 5,000 digits": _set("n_tokens", "9" * 5000),
    "a time that is not a number": _set("started_at", "nan"),
    "a time beyond bounds": _set("progress_at", "1e300"),
    "bytes that are not UTF-8": lambda ledger, job: ledger.redis.hset(
        f"rankmill:job:{job.job_id}", b"n_rows", b"\xff\xfe"
    ),
    "a missing count": lambda ledger, job: ledger.redis.hdel(
        f"rankmill:job:{job.job_id}", "n_rows"
    ),
    "a job of another type": _retyped(""),
    "live counts of another type": _retyped(":live"),
    "live counts that are a text": lambda ledger, job: ledger.redis.hset(
        f"rankmill:job:{job.job_id}:live", "0", "a b c"
    ),
    "shards in flight of another type": _retyped(":inflight"),
    "a shard in flight without a number": lambda ledger, job: ledger.redis.zadd(
        f"rankmill:job:{job.job_id}:inflight", {"x": 1}
    ),
}

FAILED: dict[str, tuple[Break, str]] = {
    "a plan of one row": (_edited(shard_bounds=[0, 1]), "end at 1, but the files have 20 rows"),
    "a plan that begins below 0": (_edited(shard_bounds=[-5, 20]), "do not rise from 0"),
    "a plan that falls": (_edited(shard_bounds=[0, 10, 5, 20]), "do not rise from 0"),
    "a plan with an empty shard": (_edited(shard_bounds=[0, 5, 5, 20]), "do not rise from 0"),
    "a plan beyond its files": (_edited(shard_bounds=[0, 40]), "the files have 20 rows"),
    "a plan of fewer shards": (_edited(shard_bounds=[0, 20]), "has no shard"),
    "a plan without bounds": (_edited(shard_bounds=[]), "shard_bounds"),
    "a plan with a wrong type": (_edited(shard_bounds="many"), "shard_bounds"),
    "a plan that is a pipe": (_special("plan.json"), "is a pipe, a socket or a device"),
    "a job that is a pipe": (_special("job.json"), "is a pipe, a socket or a device"),
    "a plan with negative rows": (_edited(files=[{"n_rows": -1}]), "files"),
}


@pytest.fixture
def reconciler(dispatcher: Dispatcher) -> Reconciler:
    return Reconciler(dispatcher, confirm_s=0)


def _forget_messages(ledger: Ledger) -> None:
    """Lose all messages, so that reconcile has to send each shard again."""
    ledger.redis.delete("rankmill.score", "rankmill.control", "rankmill:turn:reconcile")


@pytest.mark.parametrize("what", HEALED)
def test_a_broken_entry_in_redis_is_written_again_from_storage(
    what: str,
    tmp_path: Path,
    ledger: Ledger,
    reconciler: Reconciler,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken, good = _job(tmp_path, "broken"), _job(tmp_path, "good")
    for job in (broken, good):
        reconciler.remember(job.job_id, job.output.uri)
    HEALED[what](ledger, broken)
    _forget_messages(ledger)
    _age(ledger, good)
    with caplog.at_level(logging.WARNING):
        reconciler.scan()
    assert [each for each in caplog.messages if broken.job_id in each or "broken" in each]
    assert "Traceback" not in caplog.text
    counts = ledger.counts(broken.job_id)
    assert counts is not None and counts.state is JobState.RUNNING
    queued = "".join(ledger.queued("rankmill.score"))
    assert good.job_id in queued and broken.job_id in queued
    assert ledger.in_flight(broken.job_id)


@pytest.mark.parametrize("what", ["an unknown state", "a missing count", "a job of another type"])
def test_a_broken_entry_of_a_scored_job_does_not_fail_it(
    what: str, tmp_path: Path, dispatcher: Dispatcher, reconciler: Reconciler
) -> None:
    job, ledger = scored(tmp_path), dispatcher.ledger
    ledger.open_job(job.record, job.plan, list(job.output.reports(job.job_id)))
    HEALED[what](ledger, JobHandle(job.job_id, job.output, ledger))
    finalize(dispatcher, job.job_id, job.output.uri)
    assert job.output.is_success() and job.job_id not in ledger.priorities()
    HEALED[what](ledger, JobHandle(job.job_id, job.output, ledger))
    ledger.redis.hset("rankmill:running", job.job_id, "5")
    reconciler.remember(job.job_id, job.output.uri)
    reconciler.scan()
    assert job.job_id not in ledger.priorities(), "it would be scanned for ever"


def test_a_broken_bitmap_of_done_shards_is_written_again_when_a_shard_ends(
    tmp_path: Path, dispatcher: Dispatcher
) -> None:
    job, ledger = scored(tmp_path), dispatcher.ledger
    (first, *_, last) = job.output.reports(job.job_id)
    ledger.open_job(job.record, job.plan, [first])
    ledger.redis.delete(f"rankmill:job:{job.job_id}:done")
    ledger.redis.lpush(f"rankmill:job:{job.job_id}:done", "of another type")
    dispatcher.finish_shard(job, last)
    counts = ledger.counts(job.job_id)
    assert counts is not None and counts.n_shards_done == job.plan.n_shards


@pytest.mark.parametrize("what", FAILED)
def test_a_broken_plan_fails_its_job_alone(
    what: str,
    tmp_path: Path,
    ledger: Ledger,
    reconciler: Reconciler,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken, good = _job(tmp_path, "broken"), _job(tmp_path, "good")
    edit, said = FAILED[what]
    edit(ledger, broken)
    _forget_messages(ledger)
    for job in (broken, good):
        _age(ledger, job)
    with caplog.at_level(logging.WARNING):
        reconciler.scan()
    assert "Traceback" not in caplog.text
    counts = ledger.counts(broken.job_id)
    assert counts is not None and counts.state is JobState.FAILED
    assert said in counts.message
    assert good.job_id in "".join(ledger.queued("rankmill.score"))


def _age(ledger: Ledger, job: JobHandle) -> None:
    """Make a job's shards in flight look as if they had been sent long ago."""
    for shard_index in ledger.in_flight(job.job_id):
        ledger.sent_again(job.job_id, shard_index, -1000)


def test_the_exporter_and_the_list_leave_out_broken_entries(
    tmp_path: Path, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    broken, good = _job(tmp_path, "broken"), _job(tmp_path, "good")
    _set("state", "banana")(ledger, broken)
    ledger.redis.hset("rankmill:running", "x", "abc")
    ledger.redis.hset("rankmill:running", b"\xff", b"\xfe")
    for key in ("rankmill:workers", "rankmill:late"):
        ledger.redis.set(key, "of another type")
    ledger.redis.lpush("rankmill.control", b"\xff", "[" * 100_000, "{")
    registry = CollectorRegistry()
    registry.register(ClusterMetrics(Surveyor(ledger.redis)))
    for _ in range(2):
        scraped = generate_latest(registry).decode()
        assert _n_broken(scraped) >= 3 and "rankmill_redis_up 1.0" in scraped
        assert f'rankmill_job_pairs{{job_id="{good.job_id}"}} 20.0' in scraped
        assert broken.job_id not in scraped
    with caplog.at_level(logging.WARNING):
        assert [status.job_id for status in list_jobs()] == [good.job_id]
    assert "job cannot be listed" in caplog.messages and "Traceback" not in caplog.text
    ledger.redis.delete("rankmill.control")
    ledger.redis.set("rankmill.control", "of another type")
    assert _n_broken(generate_latest(registry).decode()) == _n_broken(scraped) + 1


def _n_broken(scraped: str) -> float:
    (line,) = [each for each in scraped.splitlines() if each.startswith("rankmill_broken_entries ")]
    return float(line.split()[1])


def test_a_broken_schedule_or_firing_stops_no_other(
    nights: Nights, caplog: pytest.LogCaptureFixture
) -> None:
    nights.add()
    redis = nights.ledger.redis
    redis.hset("rankmill:schedules", "broken", "{")
    redis.hset("rankmill:schedule:nightly:firings", "2020-01-01T00:00:00+00:00", "{}")
    with caplog.at_level(logging.WARNING):
        assert [spec.name for spec in nights.store.specs()] == ["nightly"]
        nights.tick(FIRST)
    assert "Traceback" not in caplog.text
    assert [firing.state for firing in nights.store.firings("nightly")] == ["running"]
    for text in ("yesterday", "2026-11-21T00:00:00"):
        redis.hset("rankmill:schedules:seen", "nightly", text)
        assert nights.store.seen("nightly") is None
