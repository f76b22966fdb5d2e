"""What comes after a job's end, when its output may be going or be another job's."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankmill import dispatch
from rankmill.errors import JobFailed
from rankmill.ledger import Ledger
from rankmill.lifecycle import JobState
from rankmill.output import Job, Output
from rankmill.settings import settings
from tests.unit.test_report import scored
from worker.finalize import finalize


@pytest.fixture
def job(tmp_path: Path, ledger: Ledger) -> Job:
    job = scored(tmp_path)
    ledger.open_job(job.record, job.plan, job.output.reports(job.job_id))
    return job


def state(ledger: Ledger, job: Job) -> JobState:
    counts = ledger.counts(job.job_id)
    assert counts is not None
    return counts.state


def test_a_finalize_that_comes_late_leaves_a_half_removed_output_alone(
    job: Job, ledger: Ledger
) -> None:
    finalize(ledger, settings(), job.job_id, job.output.uri)
    home = Path(job.output.uri)
    for name in ("_SUCCESS", "_rankmill/manifest.json", "part-00000.parquet"):
        (home / name).unlink()
    before = sorted(home.rglob("*"))
    finalize(ledger, settings(), job.job_id, job.output.uri)
    assert sorted(home.rglob("*")) == before
    assert state(ledger, job) is JobState.SUCCEEDED_WITH_REJECTS


@pytest.mark.parametrize("becomes", ["another's", "nobody's"])
def test_a_failure_is_not_noted_in_an_output_that_is_no_longer_the_jobs(
    job: Job, ledger: Ledger, becomes: str
) -> None:
    output = Output(job.output.uri)
    output.remove_result()
    if becomes == "another's":
        output.write_job(job.record.model_copy(update={"job_id": "another"}))
    before = sorted(Path(output.uri).rglob("*"))
    dispatch.fail(ledger, settings(), job.record, JobFailed("too late"), None)
    assert sorted(Path(output.uri).rglob("*")) == before
    assert state(ledger, job) is JobState.FAILED
