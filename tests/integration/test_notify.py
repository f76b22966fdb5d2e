"""Webhooks of real jobs and workers: delivered after retries, and never delaying a job."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from producer.jobs import control
from producer.jobs.handle import JobHandle
from producer.jobs.submit import submit
from rankmill.broker import NOTIFY, app
from rankmill.contract.base import parse
from rankmill.contract.job_state import JobState
from rankmill.dispatch import Dispatcher
from rankmill.errors import JobFailed
from rankmill.ledger.jobs import Ledger
from rankmill.notify import Event, notify, succeeded_event
from rankmill.reconcile import Reconciler
from rankmill.settings import settings
from tests.conftest import StartWorker
from tests.support.command import called
from tests.support.inputs import pairs, wait_for, write
from tests.support.scored import scored
from tests.support.webhook import SECRET, Receiver, receiver
from worker.finalize import make_manifest


@pytest.fixture
def hooked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiver() as found:
        monkeypatch.setenv("RANKMILL_WEBHOOK_URL", found.url)
        monkeypatch.setenv("RANKMILL_WEBHOOK_SECRET", SECRET)
        settings.cache_clear()
        yield found
    settings.cache_clear()


def job(folder: Path, rows: list[dict[str, Any]] | None = None, **options: Any) -> JobHandle:
    source = write(rows or pairs(4, 5), folder / "in.parquet")
    return submit(source, folder / "out", model_id="null", shard_pairs=6, **options)


def events(receiving: Receiver) -> list[Event]:
    return [parse(Event, each.body, "body") for each in receiving.received]


def test_a_success_is_delivered_although_two_tries_failed(
    tmp_path: Path, broker_url: str, hooked: Receiver, start_worker: StartWorker
) -> None:
    hooked.answers += [500, 503]
    start_worker()
    handle = job(tmp_path)
    assert handle.wait(60).state is JobState.SUCCEEDED
    wait_for(lambda: len(hooked.received) == 3)
    got = events(hooked)
    assert got[0] == got[1] == got[2]
    assert (got[0].kind, got[0].job_id) == ("succeeded", handle.job_id)
    assert got[0].counts is not None and got[0].counts.n_done == 20
    log = (tmp_path / "worker-one.log").read_text()
    assert "the webhook answers 503" in log
    assert "token-in-the-path" not in log and SECRET not in log


def test_a_failure_is_delivered_once_without_text_of_rows(
    tmp_path: Path, broker_url: str, hooked: Receiver, start_worker: StartWorker
) -> None:
    rows = pairs(4, 5)
    rows.append({**rows[0], "doc_id": "late"})
    for row in rows:
        row["query_id"] = f"private {row['query_id']}"
    start_worker()
    start_worker("two")
    handle = job(tmp_path, rows)
    with pytest.raises(JobFailed, match="private"):
        handle.wait(60)
    wait_for(lambda: hooked.received)
    wait_for(lambda: (tmp_path / "_rankmill/out/report.html").exists())
    got = events(hooked)
    assert len({event.event_id for event in got}) == 1
    assert got[0].kind == "failed" and "failure.json" in got[0].message
    assert not [each for each in hooked.received if b"private" in each.body]


def test_a_dead_webhook_delays_no_job(
    tmp_path: Path, broker_url: str, hooked: Receiver, start_worker: StartWorker
) -> None:
    hooked.answers += [0, 0]
    start_worker()
    assert job(tmp_path / "a").wait(60).state is JobState.SUCCEEDED
    wait_for(lambda: hooked.received)  # which does not answer
    assert job(tmp_path / "b").wait(60).state is JobState.SUCCEEDED


def test_messages_carry_neither_address_nor_secret(
    tmp_path: Path, broker_url: str, hooked: Receiver, start_worker: StartWorker
) -> None:
    handle = job(tmp_path)
    event = parse(
        Event,
        {
            "event_id": "e1",
            "kind": "gate",
            "occurred_at": "2026-11-21T06:00:00Z",
            "job_id": handle.job_id,
            "state": "succeeded",
            "output_uri": handle.output.uri,
            "schedule": "nightly",
        },
        "event",
    )
    notify(event)
    waiting = handle.ledger.queued("rankmill.control")
    (message,) = [each for each in waiting if NOTIFY in each]
    assert json.loads(message)["headers"]["kwargsrepr"] == f"gate, job {handle.job_id}"
    assert "token" not in "".join(waiting) and SECRET not in "".join(waiting)
    assert "token" not in repr(dict(app().conf)) and SECRET not in repr(dict(app().conf))
    start_worker()
    wait_for(lambda: event in events(hooked))


def test_another_worker_sends_the_event_of_a_worker_that_died(
    tmp_path: Path, ledger: Ledger, dispatcher: Dispatcher, hooked: Receiver
) -> None:
    done = scored(tmp_path)
    reports = list(done.output.reports(done.job_id))
    ledger.open_job(done.record, done.plan, reports)
    done.output.write_manifest(make_manifest(done, reports))
    done.output.mark_success()
    Reconciler(dispatcher).scan()
    waiting = "".join(ledger.queued("rankmill.control"))
    assert NOTIFY in waiting and f"succeeded, job {done.job_id}" in waiting
    counts = ledger.counts(done.job_id)
    assert counts is not None and counts.state is JobState.SUCCEEDED_WITH_REJECTS


def test_of_two_failures_the_first_is_kept_and_is_one_event(
    tmp_path: Path, ledger: Ledger, dispatcher: Dispatcher, hooked: Receiver
) -> None:
    failing = scored(tmp_path)
    ledger.open_job(failing.record, failing.plan, [])
    for message in ("the first", "the second"):
        dispatcher.fail(failing.record, JobFailed(message), None)
    failure = failing.output.read_failure()
    assert failure is not None and failure.message == "the first"
    messages = [json.loads(each) for each in ledger.queued("rankmill.control") if NOTIFY in each]
    assert len(messages) == 2 and len({each["headers"]["id"] for each in messages}) == 1


def test_nothing_is_sent_without_a_webhook_or_of_a_cancelled_job(
    tmp_path: Path, broker_url: str, start_worker: StartWorker
) -> None:
    handle = job(tmp_path)
    control.cancel(handle)
    start_worker()
    wait_for(lambda: (tmp_path / "_rankmill/out/report.html").exists())
    assert "cancelled" in (tmp_path / "_rankmill/out/report.html").read_text()
    assert NOTIFY not in (tmp_path / "worker-one.log").read_text().replace(f". {NOTIFY}", "")


def test_an_event_of_no_job_is_dropped_with_a_line(
    tmp_path: Path, ledger: Ledger, hooked: Receiver, start_worker: StartWorker
) -> None:
    real = job(tmp_path)
    done = scored(tmp_path / "done")
    reports = list(done.output.reports(done.job_id))
    ledger.open_job(done.record, done.plan, reports)
    manifest = make_manifest(done, reports)
    done.output.write_manifest(manifest)
    done.output.mark_success()
    ended = succeeded_event(manifest)
    fields = {**ended.model_dump(), "message": "forged"}
    forged = {
        "an unknown job": {"job_id": "0123456789ab"},
        "an unknown place": {"output_uri": str(tmp_path / "nowhere")},
        "a bucket without a name": {"output_uri": "s3://"},
        "another event of a job": {"event_id": "0" * 32},
        "a failure of a job that has succeeded": {"kind": "failed", "state": "failed"},
        "the end of a job that runs": {"job_id": real.job_id, "output_uri": real.output.uri},
        "a deadline of no job": {"kind": "deadline", "job_id": "0123456789ab"},
        "a run of no schedule": {"kind": "failed", "schedule": "nightly", "output_uri": ""},
    }
    for number, changes in enumerate(forged.values()):
        changed = Event(**{**fields, "event_id": f"forged-{number}", **changes})
        notify(changed)
    notify(Event(**fields))  # of a real job, but for its message
    start_worker()
    assert real.wait(60).state is JobState.SUCCEEDED
    wait_for(lambda: len(hooked.received) == 2)
    wait_for(lambda: ledger.redis.llen("rankmill.control") == 0)
    log = (tmp_path / "worker-one.log").read_text()
    assert log.count("event dropped: no job or schedule has it") == len(forged)
    assert "Traceback" not in log
    got = {event.job_id: event for event in events(hooked)}
    assert got[done.job_id] == ended and got[real.job_id].kind == "succeeded"


def test_run_delivers_before_its_redis_stops(tmp_path: Path, hooked: Receiver) -> None:
    source = write(pairs(4, 5), tmp_path / "in.parquet")
    done = called("run", source, tmp_path / "out", "--model", "null", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    (event,) = events(hooked)
    assert event.kind == "succeeded" and event.output_uri == str(tmp_path / "out")
    made = called("report", tmp_path / "out", "--json")
    assert json.loads(made.stdout)["report_uri"] == f"{tmp_path}/_rankmill/out/report.html"


def test_run_writes_the_page_of_a_failure(tmp_path: Path) -> None:
    rows = pairs(2, 5)
    rows.append({**rows[0], "doc_id": "late"})
    source = write(rows, tmp_path / "in.parquet")
    failed = called("run", source, tmp_path / "out", "--model", "null", "--device", "cpu")
    assert failed.returncode == 2, failed.stderr
    assert "comes again" in (tmp_path / "_rankmill/out/report.html").read_text()
    wrong = called("report", tmp_path)
    assert wrong.returncode == 2 and "no job was submitted" in wrong.stderr
