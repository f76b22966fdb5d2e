"""Schedules on a real Redis, and jobs on a real worker; the test says what time it is."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from producer.control import cancel, resume
from producer.follow import find_job
from producer.local import running, start_redis, worker_command
from producer.schedules import clock, hand, runs, start
from producer.schedules.changes import changes, make
from producer.schedules.file import schedule_spec
from producer.schedules.spec import Firing, FiringState, ScheduleSpec
from producer.schedules.store import Store
from producer.schedules.tick import tick
from rankmill import notify, storage
from rankmill.claim import FIRING, Claim
from rankmill.errors import InputError, StorageUnavailable
from rankmill.ledger import Ledger
from rankmill.output import Output
from rankmill.settings import settings
from rankmill.spec import JobOptions
from tests.conftest import _forget_settings
from tests.inputs import pairs, read_output, wait_for, write

BEGIN = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
# 02:15 in Berlin.
FIRST, SECOND, THIRD = (datetime(2026, 11, day, 1, 15, tzinfo=UTC) for day in (21, 22, 23))


@dataclass
class Nights:
    """Schedules under test, and the time that it is for them."""

    folder: Path
    ledger: Ledger
    store: Store
    time: datetime = BEGIN
    output: Path = field(init=False)

    def __post_init__(self) -> None:
        self.output = self.folder / "out"

    def spec(self, **own: Any) -> ScheduleSpec:
        job = {"input_uri": str(self.folder / "in.parquet"), "model_id": "null", "shard_pairs": 5}
        job |= own.pop("job", {})
        own = {"cron": "15 2 * * *", "tz": "Europe/Berlin", **own}
        return schedule_spec("nightly", JobOptions(**job), str(self.output), own, "test")

    def add(self, **own: Any) -> ScheduleSpec:
        spec = self.spec(**own)
        make(self.store, changes(self.store.specs(), [spec]), self.time)
        return spec

    def tick(self, at: datetime) -> list[Firing]:
        self.time = at
        tick(self.ledger, settings())
        return self.store.firings("nightly")

    def ended(self, at: datetime) -> list[Firing]:
        """The history once nothing runs any more."""
        wait_for(lambda: not any(f.state is FiringState.RUNNING for f in self.tick(at)))
        return self.store.firings("nightly")

    def judged(self, relevant: list[dict[str, Any]]) -> Path:
        """A file of judgments by which these rows' documents are relevant, and one besides."""
        named = [(row["query_id"], row["doc_id"]) for row in relevant] or [("q0", "d0")]
        path = self.folder / "qrels"
        path.write_text("".join(f"{query} 0 {document} 1\n" for query, document in named))
        return path

    def latest(self) -> str | None:
        found = runs.read_latest(self.spec())
        return found and Path(found.output_uri).name


def states(firings: list[Firing]) -> list[str]:
    return [str(firing.state) for firing in firings]


@pytest.fixture
def nights(broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nights:
    """Without a worker: what was submitted stays running."""
    return _nights(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def worked_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis of its own with a worker."""
    log = tmp_path_factory.mktemp("worker") / "worker.log"
    with start_redis() as (url, _):
        environment = {"RANKMILL_BROKER_URL": url, "RANKMILL_THREADS": "1"}
        environment |= {"CUDA_VISIBLE_DEVICES": "", "RANKMILL_RECONCILE_S": "1"}
        with running(worker_command("one"), environment, log):
            yield url


@pytest.fixture
def working(worked_redis: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nights]:
    """With a worker: what was submitted ends."""
    monkeypatch.setenv("RANKMILL_BROKER_URL", worked_redis)
    _forget_settings()
    nights = _nights(tmp_path, monkeypatch)
    nights.ledger._redis.flushall()
    yield nights
    _forget_settings()


def _nights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Nights:
    write(pairs(4, 5), folder / "in.parquet")
    nights = Nights(folder, Ledger.connect(settings()), Store.connect(settings()))
    monkeypatch.setattr(clock, "now", lambda ledger: nights.time)
    return nights


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """What this process has put on its way to the webhook."""
    monkeypatch.setenv("RANKMILL_WEBHOOK_URL", "http://127.0.0.1:9/hook")
    monkeypatch.setenv("RANKMILL_WEBHOOK_SECRET", "sixteen characters")
    settings.cache_clear()
    events: list[dict[str, Any]] = []
    monkeypatch.setattr(notify, "send_notify", lambda event, *_: events.append(event))
    return lambda: list({each["event_id"]: each for each in events}.values())


def test_a_due_time_becomes_one_job_and_latest_names_it(working: Nights) -> None:
    working.add()
    assert working.tick(FIRST - timedelta(seconds=1)) == []
    (firing,) = working.tick(FIRST + timedelta(seconds=20))
    assert firing.state == "running" and firing.due == FIRST
    assert firing.output_uri == str(working.output / "2026-11-21T02-15")
    assert working.latest() is None
    (firing,) = working.ended(FIRST + timedelta(minutes=1))
    assert firing.state == "succeeded" and working.latest() == "2026-11-21T02-15"
    assert len(read_output(working.output / "2026-11-21T02-15")) == 20
    assert working.ledger.job_ids() == [firing.job_id]
    working.ended(SECOND)
    assert states(working.ended(SECOND)) == ["succeeded", "succeeded"]
    assert working.latest() == "2026-11-22T02-15"
    assert sorted(os.listdir(working.output)) == [
        *("2026-11-21T02-15", "2026-11-22T02-15", "latest.json")
    ]


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
    assert os.listdir(nights.output) == ["2026-11-21T02-15"]


def test_one_tick_at_a_time_submits_a_job(nights: Nights) -> None:
    nights.add()
    firing = Firing(schedule="nightly", due=FIRST, state=FiringState.STARTING, noted_at=FIRST)
    claim = Claim.take(nights.ledger.claims, firing.job_id, FIRING, 30)
    assert claim is not None
    with claim:
        assert states(nights.tick(FIRST)) == ["starting"] and not nights.output.exists()
    assert states(nights.tick(FIRST)) == ["running"]


def test_a_tick_that_died_is_made_up_for(working: Nights) -> None:
    """Once it has noted the due time, and once it has submitted the job and not said so."""
    spec = working.add()
    noted = Firing(schedule="nightly", due=FIRST, state=FiringState.STARTING, noted_at=working.time)
    assert working.store.note_new(noted)
    (firing,) = working.tick(FIRST)
    assert firing.state == "running" and working.ledger.job_ids() == [firing.job_id]
    wait_for(Output(str(working.output / "2026-11-21T02-15")).is_success)
    working.store.note(noted)
    write(pairs(6, 5), working.folder / "in.parquet")  # what was planned stays planned
    (firing,) = working.ended(FIRST)
    assert firing.state == "succeeded" and working.ledger.job_ids() == [noted.job_id]
    assert len(read_output(working.output / "2026-11-21T02-15")) == 20
    assert spec == working.store.read("nightly")


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


def test_an_input_that_has_not_changed_is_not_run_again(working: Nights) -> None:
    working.add(unless_unchanged=True)
    working.tick(FIRST)
    working.ended(FIRST)
    firings = working.ended(SECOND)
    assert states(firings) == ["succeeded", "skipped: unchanged"]
    assert "2026-11-21T02-15" in firings[1].message and working.latest() == "2026-11-21T02-15"
    write(pairs(5, 5), working.folder / "in.parquet")
    working.tick(THIRD)
    assert states(working.ended(THIRD))[2] == "succeeded"
    assert len(read_output(working.output / "2026-11-23T02-15")) == 25


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


def test_a_job_that_failed_keeps_latest_until_it_is_resumed(working: Nights) -> None:
    working.add(job={"max_reject_rate": 0.0})
    working.tick(FIRST)
    working.ended(FIRST)
    rows = pairs(4, 5)
    rows[7]["document"] = None
    write(rows, working.folder / "in.parquet")
    working.tick(SECOND)
    firings = working.ended(SECOND)
    assert states(firings) == ["succeeded", "failed"]
    assert "rows were rejected" in firings[1].message and working.latest() == "2026-11-21T02-15"

    output = Output(str(working.output / "2026-11-22T02-15"))
    record = output.read_job()
    assert record is not None
    output.write_job(
        record.model_copy(update={"spec": record.spec.model_copy(update={"max_reject_rate": 0.1})})
    )
    resume(find_job(output.uri))
    wait_for(lambda: states(working.tick(SECOND)) == ["succeeded", "succeeded"])
    firings = working.store.firings("nightly")
    assert firings[1].message == "1 rows were rejected" and working.latest() == "2026-11-22T02-15"


def test_a_prepared_input_keeps_the_name_that_the_schedule_gave(working: Nights) -> None:
    working.add(job={"cluster": True})
    (firing,) = working.tick(FIRST)
    (ended,) = working.ended(FIRST)
    assert ended.state == "succeeded", ended.message
    assert working.ledger.job_ids() == [firing.job_id]


def test_a_deadline_that_will_not_be_kept_raises_an_alert(nights: Nights) -> None:
    """Two of the four shards in an hour, and four more hours to go."""
    nights.add(deadline="06:00")
    (firing,) = nights.tick(FIRST)
    job = nights.ledger.counts(firing.job_id)
    assert job is not None and job.n_rows == 20
    nights.ledger._redis.hset(f"rankmill:job:{firing.job_id}", "n_pairs_done", 10)
    (firing,) = nights.tick(FIRST + timedelta(hours=1))
    assert firing.late_at is None and nights.ledger.late_schedules() == {}
    nights.ledger._redis.hset(f"rankmill:job:{firing.job_id}", "n_pairs_done", 4)
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


def test_a_gate_keeps_latest_where_it_was_until_somebody_accepts_the_run(
    working: Nights, told: Callable[[], list[dict[str, Any]]]
) -> None:
    working.add(fail_if=["churn@3>0.2"], unless_unchanged=True)
    working.tick(FIRST)
    working.ended(FIRST)
    rows = pairs(4, 5)
    for row in rows:
        row["document"] += " as of the next day"  # other scores, so another order
    write(rows, working.folder / "in.parquet")
    working.tick(SECOND)
    firings = working.ended(SECOND)
    assert states(firings) == ["succeeded", "held"] and working.latest() == "2026-11-21T02-15"
    assert firings[1].message.startswith("churn@3>0.2: it is 0.")
    drift = json.loads(Path(str(firings[1].output_uri), "_rankmill", "drift.json").read_text())
    assert drift["old"]["output_uri"] == firings[0].output_uri
    assert [(e["kind"], e["schedule"]) for e in told()] == [("gate", "nightly")]

    assert states(working.ended(THIRD))[2] == "skipped: unchanged"
    hand.accept(working.ledger, working.store, "nightly")
    assert working.latest() == "2026-11-22T02-15"
    with pytest.raises(InputError, match="no gate holds"):
        hand.accept(working.ledger, working.store, "nightly")


def test_judgments_tell_whether_a_run_is_worse(working: Nights) -> None:
    """The first night's best documents are the relevant ones, so that any other order is worse."""
    working.add(fail_if=["ndcg@3<0"], qrels=str(working.judged([])))
    working.tick(FIRST)
    (first,) = working.ended(FIRST)
    best = [row for row in read_output(Path(str(first.output_uri))) if row["rank"] == 1]
    working.judged(best)
    rows = pairs(4, 5)
    for row in rows:
        row["document"] += " as of the next day"
    write(rows, working.folder / "in.parquet")
    working.tick(SECOND)
    (_, second) = working.ended(SECOND)
    assert second.state == "held" and second.message.startswith("ndcg@3<0: it is -0.")
    drift = json.loads(Path(str(second.output_uri), "_rankmill", "drift.json").read_text())
    assert [(each["measure"], each["before"]) for each in drift["ndcg"]] == [
        ("nDCG@3", 1.0),
        ("nDCG@10", 1.0),
    ]


@pytest.mark.parametrize("gates, state", [([], "succeeded"), (["churn@3>0.2"], "held")])
def test_a_run_that_cannot_be_compared(working: Nights, gates: list[str], state: str) -> None:
    """Somebody has removed the run that `latest` names."""
    working.add(fail_if=gates)
    working.tick(FIRST)
    (first,) = working.ended(FIRST)
    shutil.rmtree(str(first.output_uri))
    working.tick(SECOND)
    (_, second) = working.ended(SECOND)
    assert second.state == state and "could not be compared" in second.message
    assert working.latest() == ("2026-11-22T02-15" if state == "succeeded" else "2026-11-21T02-15")


def test_a_run_takes_the_scores_of_the_run_before(working: Nights) -> None:
    """And an input that has not changed is known for it, although that run is another by then."""
    working.add(unless_unchanged=True, job={"reuse_from": "latest", "for_reuse": True})
    working.tick(FIRST)
    working.ended(FIRST)
    assert states(working.ended(SECOND)) == ["succeeded", "skipped: unchanged"]
    rows = pairs(4, 5)
    rows[7]["document"] = "something new"
    write(rows, working.folder / "in.parquet")
    working.tick(THIRD)
    last = working.ended(THIRD)[-1]
    assert last.state == "succeeded", last.message
    manifest = Output(str(last.output_uri)).read_manifest()
    assert manifest is not None and manifest.reuse is not None
    assert manifest.reuse.source_uri == str(working.output / "2026-11-21T02-15")
    assert (manifest.reuse.n_reused, manifest.reuse.n_new) == (19, 1)


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


def test_what_somebody_should_know_is_told_once(
    nights: Nights, told: Callable[[], list[dict[str, Any]]]
) -> None:
    nights.add(deadline="02:16")
    (firing,) = nights.tick(FIRST)
    nights.tick(FIRST + timedelta(minutes=2))
    nights.tick(FIRST + timedelta(minutes=3))
    (late,) = told()
    assert (late["kind"], late["schedule"], late["job_id"]) == (
        *("deadline", "nightly", firing.job_id),
    )
    assert late["message"] == "deadline 02:16 has passed" and late["counts"]["n_rows"] == 20
    cancel(find_job(firing.job_id))
    (nights.folder / "in.parquet").unlink()
    nights.tick(SECOND)
    failed = told()[-1]
    assert (failed["kind"], failed["state"]) == ("failed", None)
    assert failed["message"] == "there is no job; the schedule's history says why"


def test_a_redis_that_lost_everything_is_given_the_schedule_and_its_runs_again(
    working: Nights,
) -> None:
    spec = working.add(unless_unchanged=True)
    working.tick(FIRST)
    before = working.ended(FIRST)
    working.ledger._redis.flushall()
    assert working.tick(SECOND) == [] and working.store.names() == []
    working.add(unless_unchanged=True)
    assert working.store.read("nightly") == spec and working.store.firings("nightly") == before
    assert states(working.tick(THIRD)) == ["succeeded", "skipped: unchanged"]


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


def test_one_schedule_that_cannot_be_looked_at_does_not_keep_others(
    nights: Nights, caplog: pytest.LogCaptureFixture
) -> None:
    nights.add()
    nights.ledger._redis.hset("rankmill:schedules", "a-broken-one", json.dumps({"version": 9}))
    assert states(nights.tick(FIRST)) == ["running"]
    said = [each for each in caplog.records if "cannot be looked at" in each.message]
    assert said and all(vars(each)["fields"] == {"schedule": "a-broken-one"} for each in said)


@pytest.mark.parametrize(
    "own, said",
    [
        ({"cron": "15 2 * *"}, "schedule nightly: cron '15 2 * *': 4 fields"),
        ({"cron": "0 0 31 2 *"}, "there is no such day"),
        ({"tz": "Europe/Berln"}, "did you mean Europe/Berlin"),
        ({"job": {"input_uri": "/nowhere/{dat}"}}, "{dat} means nothing here"),
        ({"job": {"input_uri": "{latest:/nowhere/dt=*}"}}, "nothing matches that has files"),
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
    with pytest.raises(InputError) as told:
        nights.add(**own)
    assert said in str(told.value)
    assert nights.store.names() == [] and not nights.output.exists()


def test_two_schedules_do_not_write_to_one_folder(nights: Nights) -> None:
    nights.add()
    job = JobOptions(input_uri=str(nights.folder / "in.parquet"), model_id="null")
    other = schedule_spec("other", job, f"{nights.output}/x", {"cron": "0 0 * * *"}, "test")
    with pytest.raises(InputError, match="where schedule nightly writes"):
        make(nights.store, changes(nights.store.specs(), [other]), nights.time)
