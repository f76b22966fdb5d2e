"""Outputs of version 0.1, whose control files are in the output, are used like others.

tests/v0_1 is one of its outputs: 12 rows in 3 shards, one rejected, made with --for-reuse and
--trec-run at /data/v01.
"""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from producer.jobs.check import check
from producer.jobs.control import cancel, resume, retry_rejects
from producer.jobs.handle import find_job
from producer.jobs.submit import submit
from producer.quality.drift.diff import diff
from producer.quality.evaluate import evaluate
from producer.schedules import runs
from producer.schedules.spec import Firing, FiringState, ScheduleSpec
from rankmill.contract.job import JobOptions, JobSpec
from rankmill.contract.job_state import JobState
from rankmill.ledger.jobs import Ledger
from rankmill.output.output import Output
from rankmill.report import write_report
from rankmill.settings import CHECKOUT, settings
from tests.support.finished import work_off
from tests.support.inputs import control, everything_under, part_bytes

MADE_AT = "/data/v01"
MADE = CHECKOUT / "tests" / "v0_1"
NOT_RUN = [1]  # the shard that `unfinished` has not run


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Copy the output as if it had been made in the test's folder."""
    home = tmp_path / "home"
    shutil.copytree(MADE, home)
    for name in ("job.json", "plan.json", "manifest.json"):
        path = home / "out" / "_rankmill" / name
        path.write_text(path.read_text().replace(MADE_AT, str(home)))
    plan = Output(str(home / "out")).read_plan()
    assert plan is not None
    changed_at = int(plan.files[0].state)
    os.utime(home / "in.parquet", ns=(changed_at, changed_at))
    return home / "out"


@pytest.fixture
def unfinished(old: Path) -> Path:
    for name in ("_SUCCESS", "_rankmill/manifest.json", "_rankmill/run.trec"):
        (old / name).unlink()
    for shard_index in NOT_RUN:
        (old / f"part-{shard_index:05d}.parquet").unlink()
        (old / "_rankmill/shards" / f"{shard_index:05d}.json").unlink()
    return old


def test_an_old_output_is_read(old: Path, ledger: Ledger, tmp_path: Path) -> None:
    before = everything_under(tmp_path)
    handle = find_job(str(old))
    status = handle.status()
    assert status.state is JobState.SUCCEEDED_WITH_REJECTS
    assert (status.n_rows, status.n_rejected, status.n_shards_done) == (12, 1, 3)
    assert status.control_uri == str(old / "_rankmill")
    [last] = handle.watch()
    assert last == status
    relevant = {"q0": {"d02": 1}, "q1": {"d10": 1}}
    assert evaluate(handle.output, relevant).n_in_parts == 2
    shutil.copytree(old, tmp_path / "copy")
    same = diff(handle.output, Output(str(tmp_path / "copy")), ks=(1,))
    assert same.queries.n_common == 3
    shutil.rmtree(tmp_path / "copy")
    spec = JobSpec(
        input_uri=str(old.parent / "in.parquet"),
        output_uri=str(tmp_path / "new"),
        model_id="null",
        reuse_from=str(old),
    )
    checked = check(spec)
    assert checked.record.no_reuse is None and checked.record.prepares
    assert everything_under(tmp_path) == before
    assert write_report(handle.output) == str(old / "_rankmill" / "report.html")


def test_an_old_output_is_finished_in_its_place(unfinished: Path, ledger: Ledger) -> None:
    wanted = part_bytes(MADE / "out")
    handle = find_job(str(unfinished))
    resume(handle)
    assert work_off(handle) == NOT_RUN
    assert part_bytes(unfinished) == wanted
    status = find_job(str(unfinished)).status()
    assert status.state is JobState.SUCCEEDED_WITH_REJECTS
    assert (unfinished / "_rankmill/run.trec").exists()
    assert not control(unfinished).exists()


def test_an_old_output_is_cancelled_and_its_rejects_are_retried(
    unfinished: Path, ledger: Ledger
) -> None:
    handle = find_job(str(unfinished))
    resume(handle)
    cancel(handle)
    assert (unfinished / "_rankmill/cancelled.json").exists()
    assert find_job(str(unfinished)).status().state is JobState.CANCELLED
    resume(handle)
    work_off(handle)
    ledger.redis.flushall()
    handle = find_job(str(unfinished))
    assert retry_rejects(handle) == 1
    assert work_off(handle) == [1]
    assert not control(unfinished).exists()


def test_overwriting_an_old_output_leaves_no_old_file(old: Path, ledger: Ledger) -> None:
    source = old.parent / "in.parquet"
    handle = submit(source, old, model_id="null", max_reject_rate=0.5, overwrite=True)
    assert work_off(handle) == [0]
    assert everything_under(old) == ["_SUCCESS", "part-00000.parquet"]
    status = find_job(str(old)).status()
    assert status.control_uri == str(control(old))
    assert status.n_shards == 1


def test_an_old_output_is_read_if_only_its_folder_is_allowed(
    old: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKMILL_ALLOWED_PREFIXES", str(old))
    settings.cache_clear()
    assert find_job(str(old)).status().state is JobState.SUCCEEDED_WITH_REJECTS


def test_a_schedule_finds_its_runs_of_0_1(old: Path, ledger: Ledger) -> None:
    due = datetime(2026, 11, 21, 2, 15, tzinfo=UTC)
    run = old.parent / "2026-11-21T02-15"
    old.rename(run)
    firing = Firing(
        schedule="nightly",
        due=due,
        state=FiringState.SUCCEEDED,
        noted_at=due,
        output_uri=str(run),
    )
    runs.keep_record(firing)
    assert (run / "_rankmill/firing.json").exists()
    job = JobOptions(input_uri=str(old.parent / "in.parquet"))
    spec = ScheduleSpec(name="nightly", cron="15 2 * * *", job=job, output_uri=str(old.parent))
    assert runs.recorded(spec) == [firing]


def test_an_old_control_folder_may_be_moved_next_to_the_output(old: Path, ledger: Ledger) -> None:
    control(old).parent.mkdir()
    (old / "_rankmill").rename(control(old))
    status = find_job(str(old)).status()
    assert status.state is JobState.SUCCEEDED_WITH_REJECTS
    assert status.control_uri == str(control(old))
    assert evaluate(Output(str(old)), {"q0": {"d02": 1}}).n_in_parts == 1
