"""A Redis that answers reads and refuses writes changes nothing on storage."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis

from producer.jobs.control import cancel, resume, retry_rejects
from producer.jobs.handle import JobHandle
from producer.jobs.prepare_job import prepare_job
from producer.jobs.submit import submit, submit_spec
from rankmill.dispatch import Dispatcher
from rankmill.errors import BrokerUnavailable, OutputNotReady
from rankmill.ledger.jobs import Ledger
from rankmill.output import cleanup
from rankmill.output.output import Job, Output
from rankmill.reconcile import Reconciler
from tests.conftest import forget_settings
from tests.support.denying_redis import denying_redis
from tests.support.finished import finished, planned
from tests.support.inputs import everything_under
from worker.delivery import deliver
from worker.finalize import finalize, make_manifest

ROWS = [
    {"query_id": f"q{n // 3}", "doc_id": f"d{n}", "query": f"q{n // 3}", "document": str(n)}
    for n in range(30)
]
ROWS[7]["document"] = ""


@pytest.fixture
def refusing(ledger: Ledger, request: pytest.FixtureRequest) -> Iterator[Callable[[], None]]:
    """Return a function after whose call Redis refuses writes."""
    client: redis.Redis = ledger.redis
    yield lambda: {
        "full": lambda: client.config_set("maxmemory", 1),
        "replica": lambda: client.replicaof("127.0.0.1", 9),
        "lonely": lambda: client.config_set("min-replicas-to-write", 1),
        "no rights": lambda: client.execute_command("ACL SETUSER default -lpush"),
    }[request.param]()
    client.config_set("maxmemory", 0)
    client.replicaof("NO", "ONE")
    client.config_set("min-replicas-to-write", 0)
    client.execute_command("ACL SETUSER default +@all")


every_refusal = pytest.mark.parametrize(
    "refusing", ["full", "replica", "lonely", "no rights"], indirect=True
)


def contents(folder: Path) -> dict[str, bytes | None]:
    paths = {name: folder / name for name in everything_under(folder)}
    return {name: path.read_bytes() if path.is_file() else None for name, path in paths.items()}


@contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    before = contents(folder)
    with pytest.raises(BrokerUnavailable, match=r"Redis refuses a command: .*; "):
        yield
    assert contents(folder) == before


def done_with_rejects(folder: Path) -> Output:
    job = planned(ROWS, folder, shard_pairs=10, max_reject_rate=0.5)
    output = finished(job)
    output.write_manifest(make_manifest(job, list(output.reports(job.job_id))))
    return output


@every_refusal
def test_a_refused_submit_leaves_nothing(refusing: Callable[[], None], tmp_path: Path) -> None:
    job = planned(ROWS, tmp_path)
    refusing()
    with unchanged(tmp_path):
        submit(job.spec.input_uri, job.spec.output_uri, model_id="null")


@every_refusal
def test_a_finished_result_stays_whole(
    refusing: Callable[[], None], tmp_path: Path, ledger: Ledger
) -> None:
    output = done_with_rejects(tmp_path)
    job = output.load_job()
    refusing()
    with unchanged(tmp_path):
        retry_rejects(JobHandle(job.job_id, output, ledger))
    with unchanged(tmp_path):
        submit(job.spec.input_uri, output.uri, model_id="null", top_k=1, overwrite=True)


@every_refusal
def test_a_job_that_did_not_succeed_stays_as_it_was(
    refusing: Callable[[], None], tmp_path: Path, ledger: Ledger
) -> None:
    job = planned(ROWS, tmp_path)
    handle = submit(job.spec.input_uri, job.spec.output_uri, model_id="null")
    refusing()
    with unchanged(tmp_path):
        cancel(handle)
    handle.output.mark_cancelled()
    with unchanged(tmp_path):
        resume(handle)
    with unchanged(tmp_path):
        submit(job.spec.input_uri, job.spec.output_uri, model_id="null")


@pytest.mark.parametrize("model", ["null", "null:1000"])
def test_an_overwritten_result_is_removed_only_when_redis_has_the_new_job(
    tmp_path: Path, ledger: Ledger, broker_url: str, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    """Refuse commands from the first, second, third … on; the new job is the same or another."""
    output = done_with_rejects(tmp_path)
    spec = output.load_job().spec.model_copy(update={"model_id": model})
    before, refused = contents(tmp_path), set()
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as folder,
        denying_redis(broker_url, Path(folder)) as proxy,
    ):
        monkeypatch.setenv("RANKMILL_BROKER_URL", proxy.url)
        for n_allowed in range(60):
            forget_settings()
            proxy.n_allowed, proxy.n_seen, proxy.refused = n_allowed, 0, []
            try:
                submit_spec(spec, overwrite=True)
            except BrokerUnavailable:
                assert contents(tmp_path) == before, proxy.refused
                refused |= set(proxy.refused)
                assert Output(output.uri).state() == "succeeded with rejects"
                ledger.redis.flushall()
                continue
            break
    new = Output(output.uri)
    record = new.read_job()
    assert record is not None and not new.has_ended() and not new.part_names()
    assert record.job_id in ledger.job_ids() and len(ledger.queued("rankmill.score")) == 3
    assert {b"HSET", b"LPUSH"} <= refused, refused


def test_a_worker_waits_while_an_earlier_result_is_removed(
    tmp_path: Path, ledger: Ledger, dispatcher: Dispatcher
) -> None:
    output = done_with_rejects(tmp_path)
    job = output.load_job()
    new = job.record.model_copy(update={"submitted_at": datetime.now(UTC)})
    other = new.model_copy(update={"job_id": "0123456789ab"})
    for record in (new, other):
        plan = job.plan.model_copy(update={"job_id": record.job_id})
        ledger.open_job(record, plan, (), replaces=True)
        dispatcher.advance(Job(record, plan))
        before = contents(tmp_path)
        with pytest.raises(OutputNotReady):
            deliver(plan.shard(0, output.uri))
        for early in (finalize, prepare_job):
            with pytest.raises(OutputNotReady):
                early(dispatcher, record.job_id, output.uri)
        reconciler = Reconciler(dispatcher)
        reconciler.scan()
        counts = ledger.counts(record.job_id)
        assert counts is not None and counts.state == "running"
        assert contents(tmp_path) == before
        ledger.end_turn("reconcile")
    cleanup.remove_result(output)
    output.write_plan(plan)
    output.write_job(other)
    assert "scored" in deliver(plan.shard(0, output.uri))


def test_a_redis_that_fails_half_way_changes_nothing(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = done_with_rejects(tmp_path)
    handle = JobHandle(output.load_job().job_id, output, ledger)
    for module in ("control", "submit"):
        monkeypatch.setattr(
            f"producer.jobs.{module}.check_takes_writes",
            lambda client: client.config_set("maxmemory", 1),
        )
    try:
        with unchanged(tmp_path):
            retry_rejects(handle)
        (tmp_path / "new").mkdir()
        with unchanged(tmp_path):
            submit(tmp_path / "in.parquet", tmp_path / "new", model_id="null")
    finally:
        ledger.redis.config_set("maxmemory", 0)
