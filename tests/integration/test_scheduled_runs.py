"""What schedules start on a real worker: runs that end, are compared, reused and named latest."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from producer.jobs.control import resume
from producer.jobs.handle import find_job
from producer.schedules import commands as hand
from producer.schedules.spec import Firing, FiringState
from rankmill.errors import InputError
from rankmill.output.output import Output
from tests.support.inputs import control, pairs, read_output, wait_for, write
from tests.support.nights import FIRST, SECOND, THIRD, Nights, states


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
        *("2026-11-21T02-15", "2026-11-22T02-15", "_rankmill", "latest.json")
    ]


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
    wait_for(lambda: is_through(working, firings[1]))
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


def test_a_gate_keeps_latest_where_it_was_until_somebody_accepts_the_run(
    working: Nights, events: Callable[[], list[dict[str, Any]]]
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
    drift = json.loads((control(Path(str(firings[1].output_uri))) / "drift.json").read_text())
    assert drift["old"]["output_uri"] == firings[0].output_uri
    assert [(e["kind"], e["schedule"]) for e in events()] == [("gate", "nightly")]

    assert states(working.ended(THIRD))[2] == "skipped: unchanged"
    hand.accept(working.ledger, working.store, "nightly")
    assert working.latest() == "2026-11-22T02-15"
    with pytest.raises(InputError, match="no gate holds"):
        hand.accept(working.ledger, working.store, "nightly")


def test_judgments_show_whether_a_run_is_worse(working: Nights) -> None:
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
    drift = json.loads((control(Path(str(second.output_uri))) / "drift.json").read_text())
    assert [(each["measure"], each["before"]) for each in drift["ndcg"]] == [
        ("nDCG@3", 1.0),
        ("nDCG@10", 1.0),
    ]


def is_through(working: Nights, firing: Firing) -> bool:
    """Return whether the worker is done with a run, whose end is on storage first."""
    counts = working.ledger.counts(firing.job_id)
    return counts is not None and counts.state.is_final


@pytest.mark.parametrize("gates, state", [([], "succeeded"), (["churn@3>0.2"], "held")])
def test_a_run_that_cannot_be_compared(working: Nights, gates: list[str], state: str) -> None:
    """Somebody has removed the run that `latest` names."""
    working.add(fail_if=gates)
    working.tick(FIRST)
    (first,) = working.ended(FIRST)
    wait_for(lambda: is_through(working, first))
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


def test_a_redis_that_lost_everything_is_given_the_schedule_and_its_runs_again(
    working: Nights,
) -> None:
    spec = working.add(unless_unchanged=True)
    working.tick(FIRST)
    before = working.ended(FIRST)
    working.ledger.redis.flushall()
    assert working.tick(SECOND) == [] and working.store.names() == []
    working.add(unless_unchanged=True)
    assert working.store.read("nightly") == spec and working.store.firings("nightly") == before
    assert states(working.tick(THIRD)) == ["succeeded", "skipped: unchanged"]
