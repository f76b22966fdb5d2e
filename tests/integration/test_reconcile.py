"""One worker scans for all: what it reads, who takes over, and that nothing is sent twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from producer.jobs.handle import JobHandle
from producer.jobs.submit import submit
from rankmill.broker import CONTROL_QUEUE, PREPARE, app, shard_task_id, task_id_of
from rankmill.contract.job import JobRecord
from rankmill.contract.job_state import JobState
from rankmill.dispatch import Dispatcher
from rankmill.ledger.claims import FINALIZATION, PREPARATION
from rankmill.ledger.jobs import Ledger
from rankmill.ledger.scanning import Lease
from rankmill.output.output import Output
from rankmill.reconcile import Reconciler
from rankmill.settings import settings
from rankmill.storage import stores
from rankmill.storage.protocol import Store
from tests.support.inputs import pairs, wait_for, write

QUEUE = "rankmill.score"


@pytest.fixture
def job(tmp_path: Path, ledger: Ledger) -> JobHandle:
    return _submit(tmp_path, "out")


def test_a_worker_that_is_not_elected_asks_redis_once_for_any_number_of_jobs(
    tmp_path: Path, dispatcher: Dispatcher
) -> None:
    elected, other = Reconciler(dispatcher), Reconciler(dispatcher)
    elected.scan()
    costs = []
    for n_jobs in (1, 5):
        for n in range(n_jobs):
            _submit(tmp_path, f"out-{n_jobs}-{n}")
        assert elected.scan() > 0
        costs.append(_commands(dispatcher.ledger, other.scan))
    assert costs == [1, 1]


def test_a_scan_of_a_healthy_job_does_not_read_storage(
    job: JobHandle, ledger: Ledger, dispatcher: Dispatcher
) -> None:
    reconciler = Reconciler(dispatcher, confirm_s=0)
    _age(ledger, job)  # its messages have waited for long
    folder = Path(job.output.control_uri)
    folder.rename(folder.with_name("away"))
    for _ in range(2):
        reconciler.scan()
    counts = ledger.counts(job.job_id)
    assert counts is not None and counts.state is JobState.RUNNING
    assert not ledger.declines.of_job(job.job_id, ledger.now())
    ledger.redis.delete(QUEUE)  # now its work is lost, and storage is asked
    reconciler.scan()
    assert ledger.declines.of_job(job.job_id, ledger.now())


def test_work_that_is_lost_in_two_scans_is_sent_once(
    job: JobHandle, ledger: Ledger, dispatcher: Dispatcher
) -> None:
    reconciler = Reconciler(dispatcher, confirm_s=0.1)
    sent = _waiting(ledger)
    ledger.redis.delete(QUEUE)
    _age(ledger, job)
    reconciler.scan()
    assert _waiting(ledger) == []  # a worker may have it and not have claimed it yet
    time.sleep(0.1)
    for _ in range(3):
        reconciler.scan()
    assert sorted(_waiting(ledger)) == sorted(sent)


def test_messages_with_a_priority_of_celery_are_not_lost(
    job: JobHandle, ledger: Ledger, dispatcher: Dispatcher
) -> None:
    _age(ledger, job)
    sent = _waiting(ledger)
    ledger.redis.delete(QUEUE)
    for number, task_id in enumerate(sent):
        app().send_task(PREPARE, task_id=task_id, queue=QUEUE, priority=3 + number)
    reconciler = Reconciler(dispatcher, confirm_s=0)
    for _ in range(2):
        reconciler.scan()
    assert _waiting(ledger) == []


def test_work_that_a_worker_claims_between_two_scans_is_not_sent(
    job: JobHandle, ledger: Ledger, dispatcher: Dispatcher
) -> None:
    reconciler = Reconciler(dispatcher, confirm_s=0)
    ledger.redis.delete(QUEUE)
    _age(ledger, job)
    for shard_index in ledger.in_flight(job.job_id):
        assert ledger.claims.take(job.job_id, shard_index, "a worker", 60)
    for _ in range(2):
        reconciler.scan()
    assert _waiting(ledger) == []


def test_a_worker_without_the_lease_sends_nothing(job: JobHandle, ledger: Ledger) -> None:
    _age(ledger, job)
    (shard_index, due), *_ = ledger.in_flight(job.job_id).items()
    frozen, successor = (Lease(ledger.redis, "reconcile", 0.2) for _ in range(2))
    assert frozen.hold() and not successor.hold()
    assert frozen.hold()
    time.sleep(0.3)
    assert successor.hold() and not frozen.is_held
    assert not frozen.may_send_again(job.job_id, shard_index, due)
    assert successor.may_send_again(job.job_id, shard_index, due)
    assert not successor.may_send_again(job.job_id, shard_index, due), "sent twice"


def test_another_worker_takes_over_within_two_periods(
    job: JobHandle, ledger: Ledger, dispatcher: Dispatcher
) -> None:
    dead, other = (Reconciler(dispatcher, confirm_s=0) for _ in range(2))
    dead.scan()
    ledger.redis.delete(QUEUE)
    _age(ledger, job)
    died_at = time.monotonic()
    while not _waiting(ledger):
        time.sleep(other.scan())
        assert time.monotonic() - died_at < 10 * dispatcher.settings.reconcile_s
    assert time.monotonic() - died_at < 3 * dispatcher.settings.reconcile_s


@pytest.mark.parametrize("state", [JobState.PREPARING, JobState.FINALIZING])
def test_lost_work_of_a_whole_job_is_sent_again_once_it_is_lost_in_two_scans(
    job: JobHandle, ledger: Ledger, dispatcher: Dispatcher, state: JobState
) -> None:
    reconciler = Reconciler(dispatcher, confirm_s=0.1)
    work = PREPARATION if state is JobState.PREPARING else FINALIZATION
    key = f"rankmill:job:{job.job_id}"
    ledger.redis.hset(key, "n_shards_done", ledger.redis.hget(key, "n_shards"))
    ledger.redis.hset(key, "state", state)
    token = ledger.claims.take(job.job_id, work, "a worker", 60)
    assert token is not None
    reconciler.scan()
    ledger.claims.release(job.job_id, work, token)
    reconciler.scan()
    assert ledger.queued("rankmill.control") == []
    time.sleep(0.1)
    for _ in range(3):
        reconciler.scan()
    assert len(ledger.queued("rankmill.control")) == 1


def test_storage_that_hangs_for_one_job_stops_neither_scans_nor_other_jobs(
    tmp_path: Path, ledger: Ledger, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, healthy = _submit(tmp_path, "hanging"), _submit(tmp_path, "healthy")
    sent = [each for each in _waiting(ledger) if each.startswith(healthy.job_id)]
    ledger.redis.delete(QUEUE)
    _age(ledger, hanging)
    _age(ledger, healthy)
    read_job, answers = Output.read_job, threading.Event()

    def read_slowly(output: Output) -> JobRecord | None:
        if output == hanging.output:
            answers.wait(60)
        return read_job(output)

    monkeypatch.setattr(Output, "read_job", read_slowly)
    reconciler = Reconciler(dispatcher, confirm_s=0)
    began = time.monotonic()
    for _ in range(3):
        reconciler.scan()
    try:
        assert time.monotonic() - began < 6 * dispatcher.settings.reconcile_s
        assert sorted(_waiting(ledger)) == sorted(sent)
        assert sum(each.name.startswith("reconcile") for each in threading.enumerate()) == 1
    finally:
        answers.set()


def test_jobs_that_cannot_be_checked_do_not_keep_others_waiting(
    tmp_path: Path, ledger: Ledger, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rankmill.reconcile._MAX_CHECKED", 1)
    jobs = [_submit(tmp_path, f"out-{n}") for n in range(5)]
    ledger.redis.delete(QUEUE)
    ledger.workers.seen("another worker", [CONTROL_QUEUE])  # it may see what this one does not
    for job in jobs:
        _age(ledger, job)
    for job in jobs[:-1]:
        folder = Path(job.output.control_uri)
        folder.rename(folder.with_name(f"away-{job.job_id}"))
    reconciler = Reconciler(dispatcher, confirm_s=0)
    for _ in range(6):
        reconciler.scan()
    assert any(each.startswith(jobs[-1].job_id) for each in _waiting(ledger))


def test_scans_of_many_jobs_on_slow_storage_keep_their_lease_and_send_nothing_twice(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All checks together take longer than a lease; another worker asks for it all the time."""
    jobs = [_submit(tmp_path, f"out-{n}") for n in range(32)]
    sent = _waiting(ledger)
    for job in jobs:
        _age(ledger, job)
    ledger.redis.delete(QUEUE)
    slow = _Slow(stores._local_store())
    monkeypatch.setattr(stores, "_local_store", lambda: slow)
    stop, scans = threading.Event(), []

    def scan_for_ever() -> None:
        own = Dispatcher(Ledger.connect(settings()), settings())
        reconciler = Reconciler(own, confirm_s=0)
        while not stop.wait(0.02):
            began = time.monotonic()
            if reconciler.scan() != 0.9 * settings().reconcile_s:  # it held the lease
                scans.append((began, time.monotonic()))

    threads = [threading.Thread(target=scan_for_ever) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: set(_waiting(ledger)) == set(sent), within_s=30)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert len(scans) > 1, "one scan was enough"
    for (_, ended), (began, _) in pairwise(sorted(scans)):
        assert ended <= began, "two workers scanned at once"
    assert sorted(_waiting(ledger)) == sorted(sent)


class _Slow:
    """A store whose every call takes 50 ms."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        time.sleep(0.05)
        return getattr(self._store, name)


def _submit(folder: Path, name: str) -> JobHandle:
    source = write(pairs(6, 5), folder / "in.parquet")
    return submit(source, folder / name, model_id="null", shard_pairs=5)


def _waiting(ledger: Ledger) -> list[str]:
    return [task_id_of(message) for message in ledger.queued(QUEUE)]


def _age(ledger: Ledger, job: JobHandle) -> None:
    """Make a job's shards in flight look as if they had been sent long ago."""
    assert shard_task_id(job.job_id, 0) in _waiting(ledger) or not _waiting(ledger)
    for shard_index in ledger.in_flight(job.job_id):
        ledger.sent_again(job.job_id, shard_index, -1000)


def _commands(ledger: Ledger, call: Callable[[], object]) -> int:
    before = ledger.redis.info("stats")["total_commands_processed"]
    call()
    return int(ledger.redis.info("stats")["total_commands_processed"]) - before - 1
