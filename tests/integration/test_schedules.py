"""Schedules on a real Redis: when a run is due, waits, is missed; the test says what time it is."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from producer.jobs.control import cancel
from producer.jobs.handle import find_job
from producer.schedules import clock, runs, start
from producer.schedules import commands as hand
from producer.schedules.changes import changes, make
from producer.schedules.file import schedule_spec
from producer.schedules.spec import Firing, FiringState
from producer.schedules.tick import tick
from rankmill import storage
from rankmill.contract.job import JobOptions
from rankmill.errors import InputError, StorageUnavailable
from rankmill.ledger.claims import FIRING, Claim
from rankmill.ledger.jobs import Ledger
from rankmill.output.output import Output
from rankmill.settings import settings
from tests.support.inputs import pairs, write
from tests.support.nights import BEGIN, FIRST, SECOND, THIRD, Nights, states


class _AlwaysItsTurn(Ledger):
    """Lets ticks meet that would go one after the other, so that claims must keep them apart."""

    def take_turn(self, name: str, for_s: float) -> bool:
        return True


def _tick_at(time: datetime, go: Any) -> None:
    """In a process of its own, as another worker would."""
    clock.now = lambda ledger: time
    settings.cache_clear()
    go.wait()
    tick(_AlwaysItsTurn.connect(settings()), settings())


def test_ticks_at_the_same_moment_make_one_job(nights: Nights) -> None:
    nights.add()
    context = multiprocessing.get_context("spawn")
    go = context.Barrier(4)
    processes = [context.Process(target=_tick_at, args=(FIRST, go)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    (firing,) = nights.store.firings("nightly")
    assert firing.state == "running"
    assert nights.ledger.job_ids() == [firing.job_id]
    assert sorted(os.listdir(nights.output)) == ["2026-11-21T02-15", "_rankmill"]


def test_one_tick_at_a_time_submits_a_job(nights: Nights) -> None:
    nights.add()
    firing = Firing(schedule="nightly", due=FIRST, state=FiringState.STARTING, noted_at=FIRST)
    claim = Claim.take(nights.ledger.claims, firing.job_id, FIRING, 30)
    assert claim is not None
    with claim:
        assert states(nights.tick(FIRST)) == ["starting"] and not nights.output.exists()
    assert states(nights.tick(FIRST)) == ["running"]


def test_a_run_that_has_not_ended_lets_the_next_be_skipped(nights: Nights) -> None:
    nights.add()
    nights.tick(FIRST)
    firings = nights.tick(SECOND)
    assert states(firings) == ["running", "skipped: overlap"]
    assert "2026-11-21 01:15:00 UTC has not ended" in firings[1].message


def test_or_it_waits_its_turn(nights: Nights) -> None:
    nights.add(overlap="queue")
    nights.tick(FIRST)
    nights.tick(SECOND)
    firings = nights.tick(THIRD)
    assert states(firings) == ["running", "waiting", "waiting"]
    assert firings[0].started_at == FIRST
    cancel(find_job(firings[0].job_id))
    firings = nights.tick(THIRD + timedelta(hours=1))
    assert states(firings) == ["cancelled", "running", "waiting"]
    assert firings[1].started_at == THIRD + timedelta(hours=1)
    assert firings[1].output_uri == str(nights.output / "2026-11-22T02-15")


def test_what_nobody_saw_was_missed(nights: Nights) -> None:
    nights.add()
    firings = nights.tick(SECOND + timedelta(hours=2))
    assert states(firings) == ["skipped: missed", "skipped: missed"]
    assert not nights.output.exists()


def test_or_the_latest_of_it_is_run(nights: Nights) -> None:
    nights.add(missed="latest")
    firings = nights.tick(SECOND + timedelta(hours=2))
    assert states(firings) == ["skipped: missed", "running"]


def test_a_job_that_cannot_be_submitted_says_why_and_the_next_is_due(nights: Nights) -> None:
    nights.add()
    (nights.folder / "in.parquet").unlink()
    (firing,) = nights.tick(FIRST)
    assert firing.state == "not submitted" and "no such file" in firing.message
    write(pairs(4, 5), nights.folder / "in.parquet")
    assert states(nights.tick(SECOND)) == ["not submitted", "running"]


def _unavailable(*_: Any, **__: Any) -> None:
    raise StorageUnavailable("s3://b: throttled")


def test_a_fault_that_passes_delays_a_run(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    nights.add()
    with monkeypatch.context() as broken:
        broken.setattr(start, "check", _unavailable)
        assert states(nights.tick(FIRST)) == ["starting"]
    assert states(nights.tick(FIRST)) == ["running"]


def test_one_that_stays_ends_it(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    nights.add()
    monkeypatch.setattr(start, "check", _unavailable)
    assert states(nights.tick(FIRST)) == ["starting"]
    (firing,) = nights.tick(FIRST + timedelta(hours=2))
    assert firing.state == "not submitted" and "throttled" in firing.message


def test_a_deadline_that_will_not_be_kept_raises_an_alert(nights: Nights) -> None:
    """Two of the four shards in an hour, and four more hours to go."""
    nights.add(deadline="06:00")
    (firing,) = nights.tick(FIRST)
    job = nights.ledger.counts(firing.job_id)
    assert job is not None and job.n_rows == 20
    nights.ledger.redis.hset(f"rankmill:job:{firing.job_id}", "n_pairs_done", 10)
    (firing,) = nights.tick(FIRST + timedelta(hours=1))
    assert firing.late_at is None and nights.ledger.late_schedules() == {}
    nights.ledger.redis.hset(f"rankmill:job:{firing.job_id}", "n_pairs_done", 4)
    (firing,) = nights.tick(FIRST + timedelta(hours=1))
    assert firing.late_at == FIRST + timedelta(hours=1)
    assert nights.ledger.late_schedules() == {"nightly": "2026-11-21T01:15:00Z"}
    cancel(find_job(firing.job_id))
    (firing,) = nights.tick(FIRST + timedelta(hours=2))
    assert firing.state == "cancelled" and firing.late_at == FIRST + timedelta(hours=1)
    assert nights.ledger.late_schedules() == {}


def test_a_deadline_that_has_passed_raises_it_too(nights: Nights) -> None:
    nights.add(deadline="06:00")
    nights.tick(FIRST)
    assert nights.tick(datetime(2026, 11, 21, 5, 0, tzinfo=UTC))[0].late_at is None
    assert nights.tick(datetime(2026, 11, 21, 5, 1, tzinfo=UTC))[0].late_at is not None


def test_input_and_output_on_s3(nights: Nights, s3: str) -> None:
    for day in ("20", "21"):
        content = (nights.folder / "in.parquet").read_bytes()
        storage.write_bytes(f"{s3}/pairs/dt=2026-11-{day}/a.parquet", content)
    storage.write_bytes(f"{s3}/pairs/dt=2026-11-22/_temporary/a", b"")
    job = JobOptions(input_uri=f"{{latest:{s3}/pairs/dt=*}}/*.parquet", model_id="null")
    spec = schedule_spec("nightly", job, f"{s3}/scored", {"cron": "15 2 * * *"}, "test")
    make(nights.store, changes([], [spec]), nights.time)
    (firing,) = nights.tick(FIRST + timedelta(hours=1, minutes=1))
    assert firing.output_uri == f"{s3}/scored/2026-11-21T02-15"
    record = Output(firing.output_uri).read_job()
    assert record is not None
    assert record.spec.input_uri == f"{s3}/pairs/dt=2026-11-21/*.parquet"
    runs.publish_latest(spec, firing, nights.time)
    latest = runs.read_latest(spec)
    assert latest is not None and latest.output_uri == firing.output_uri
    assert runs.recorded(spec) == [firing]


def test_each_event_is_sent_once(
    nights: Nights, events: Callable[[], list[dict[str, Any]]]
) -> None:
    nights.add(deadline="02:16")
    (firing,) = nights.tick(FIRST)
    nights.tick(FIRST + timedelta(minutes=2))
    nights.tick(FIRST + timedelta(minutes=3))
    (late,) = events()
    assert (late["kind"], late["schedule"], late["job_id"]) == (
        *("deadline", "nightly", firing.job_id),
    )
    assert late["message"] == "deadline 02:16 has passed" and late["counts"]["n_rows"] == 20
    cancel(find_job(firing.job_id))
    (nights.folder / "in.parquet").unlink()
    nights.tick(SECOND)
    failed = events()[-1]
    assert (failed["kind"], failed["state"]) == ("failed", None)
    assert "in.parquet: no such file" in failed["message"]


def test_latest_never_moves_back(nights: Nights) -> None:
    spec = nights.spec()
    for due in (SECOND, FIRST):
        place = runs.job_spec(spec, due).output_uri
        firing = Firing(
            schedule="nightly",
            due=due,
            state=FiringState.RUNNING,
            noted_at=due,
            output_uri=place,
        )
        runs.publish_latest(spec, firing, THIRD)
    assert nights.latest() == "2026-11-22T02-15"


def test_the_history_is_bounded(nights: Nights) -> None:
    nights.add(cron="* * * * *")
    nights.tick(BEGIN + timedelta(minutes=1500))
    firings = nights.tick(BEGIN + timedelta(minutes=1510))
    assert len(firings) == 1000 and firings[-1].due == BEGIN + timedelta(minutes=1510)
    assert nights.store.seen("nightly") == BEGIN + timedelta(minutes=1510)


def test_a_pause_is_not_made_up_for(nights: Nights) -> None:
    nights.add(missed="latest")
    hand.set_paused(nights.ledger, nights.store, "nightly", True)
    assert nights.tick(FIRST) == []
    nights.time = SECOND + timedelta(minutes=1)
    hand.set_paused(nights.ledger, nights.store, "nightly", False)
    assert nights.tick(SECOND + timedelta(minutes=2)) == []
    assert states(nights.tick(THIRD)) == ["running"]


def test_running_by_hand_goes_by_the_overlap_policy(nights: Nights) -> None:
    nights.add(unless_unchanged=True)
    run = hand.run_now(nights.ledger, settings(), nights.store, "nightly")
    assert run.state == "running" and run.by_hand
    assert run.output_uri == str(nights.output / "2026-11-20T13-00")
    nights.time += timedelta(seconds=5)
    with pytest.raises(InputError, match="has not ended"):
        hand.run_now(nights.ledger, settings(), nights.store, "nightly")
    spec = nights.store.read("nightly").model_copy(update={"overlap": "queue"})
    nights.store.write([spec], {})
    assert hand.run_now(nights.ledger, settings(), nights.store, "nightly").state == "waiting"


def test_one_schedule_that_fails_does_not_stop_others(
    nights: Nights, caplog: pytest.LogCaptureFixture
) -> None:
    nights.add()
    nights.ledger.redis.hset("rankmill:schedules", "a-broken-one", json.dumps({"version": 9}))
    assert states(nights.tick(FIRST)) == ["running"]
    said = [each for each in caplog.records if "schedule update failed" in each.message]
    assert said and all(vars(each)["fields"]["schedule"] == "a-broken-one" for each in said)


@pytest.mark.parametrize(
    "own, said",
    [
        ({"cron": "15 2 * *"}, "schedule nightly: cron '15 2 * *': 4 fields"),
        ({"cron": "0 0 31 2 *"}, "no such day exists"),
        ({"tz": "Europe/Berln"}, "did you mean Europe/Berlin"),
        ({"job": {"input_uri": "/nowhere/{dat}"}}, "unknown template {dat}"),
        ({"job": {"input_uri": "{latest:/nowhere/dt=*}"}}, "no match that contains files"),
        ({"job": {"input_uri": "/nowhere/in.parquet"}}, "no such file"),
        ({"job": {"model_id": "/no/model"}}, "no such model folder"),
        ({"job": {"model_id": "/no/model", "input_uri": "/in/{date}"}}, "no such model folder"),
        ({"job": {"query_col": "question"}}, "question"),
        ({"fail_if": ["churn>0.3"]}, "churn needs a place"),
        ({"fail_if": ["ndcg@10<0"]}, "needs judgments"),
        ({"qrels": "/nowhere/qrels"}, "/nowhere/qrels: no such file"),
    ],
)
def test_a_schedule_that_cannot_work_is_refused(
    nights: Nights, own: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError) as refused:
        nights.add(**own)
    assert said in str(refused.value)
    assert nights.store.names() == [] and not nights.output.exists()


def test_two_schedules_do_not_write_to_one_folder(nights: Nights) -> None:
    nights.add()
    job = JobOptions(input_uri=str(nights.folder / "in.parquet"), model_id="null")
    other = schedule_spec("other", job, f"{nights.output}/x", {"cron": "0 0 * * *"}, "test")
    with pytest.raises(InputError, match="schedule nightly writes to"):
        make(nights.store, changes(nights.store.specs(), [other]), nights.time)
