"""Finalize, fail and remove when the output may be half removed or another job's."""

from __future__ import annotations

from pathlib import Path

import pytest

from producer.jobs.prepare_job import prepare_job
from producer.jobs.submit import submit
from rankmill import storage
from rankmill.contract.job_state import JobState
from rankmill.dispatch import Dispatcher
from rankmill.errors import ClaimLost, JobFailed, StorageUnavailable
from rankmill.ledger.claims import FINALIZATION, Claim
from rankmill.ledger.jobs import Ledger
from rankmill.output import cleanup
from rankmill.output.output import Job, Output
from rankmill.reconcile import Reconciler
from rankmill.settings import settings
from tests.support.inputs import control, everything_under, pairs, write
from tests.support.scored import scored
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


def test_a_late_finalize_leaves_a_half_removed_output_alone(
    job: Job, ledger: Ledger, dispatcher: Dispatcher
) -> None:
    finalize(dispatcher, job.job_id, job.output.uri)
    home = Path(job.output.uri)
    for place in (home / "_SUCCESS", control(home) / "manifest.json", home / "part-00000.parquet"):
        place.unlink()
    before = everything_under(home.parent)
    finalize(dispatcher, job.job_id, job.output.uri)
    assert everything_under(home.parent) == before
    assert state(ledger, job) is JobState.SUCCEEDED_WITH_REJECTS


def test_rejects_of_an_earlier_run_go_where_the_last_run_had_none(
    job: Job, dispatcher: Dispatcher
) -> None:
    rejected = control(Path(job.output.uri)) / "rejected"
    (there,) = rejected.iterdir()
    before = there.read_bytes()
    (rejected / "part-00003.parquet").write_bytes(before)
    (rejected / "part-00099.parquet").write_bytes(before)
    finalize(dispatcher, job.job_id, job.output.uri)
    assert job.output.is_success()
    assert list(rejected.iterdir()) == [there] and there.read_bytes() == before


@pytest.mark.parametrize("becomes", ["another's", "nobody's"])
def test_a_failure_is_not_noted_in_an_output_that_is_no_longer_the_jobs(
    job: Job, ledger: Ledger, dispatcher: Dispatcher, becomes: str
) -> None:
    output = Output(job.output.uri)
    cleanup.remove_result(output)
    if becomes == "another's":
        output.write_job(job.record.model_copy(update={"job_id": "another"}))
    before = sorted(Path(output.uri).rglob("*"))
    dispatcher.fail(job.record, JobFailed("too late"), None)
    assert sorted(Path(output.uri).rglob("*")) == before
    assert state(ledger, job) is JobState.FAILED


class ResumedMeanwhile(Ledger):
    """A ledger whose jobs are resumed just before it notes their end."""

    def end_job(self, job_id: str, state: JobState, message: str, keep_s: int) -> None:
        counts = self.counts(job_id)
        assert counts is not None
        cleanup.reopen(Output(counts.output_uri))
        super().end_job(job_id, state, message, keep_s)


@pytest.mark.parametrize("end", ["fail", "cancel", "finalize"])
def test_a_job_resumed_while_its_end_is_noted_goes_on(job: Job, ledger: Ledger, end: str) -> None:
    late = Dispatcher(ResumedMeanwhile(ledger.redis), settings())
    if end == "fail":
        late.fail(job.record, JobFailed("once"), None)
    elif end == "cancel":
        late.cancel(job.output, job.job_id)
    else:
        finalize(late, job.job_id, job.output.uri)
    assert state(ledger, job) is JobState.FINALIZING
    assert ledger.priorities() == {job.job_id: job.spec.priority}
    assert any("rankmill.finalize" in message for message in ledger.queued("rankmill.control"))


def test_two_workers_finalize_a_job_once(job: Job, ledger: Ledger, dispatcher: Dispatcher) -> None:
    ledger.set_state(job.job_id, JobState.FINALIZING)
    claim = Claim.take(ledger.claims, job.job_id, FINALIZATION, 30)
    assert claim is not None
    with claim:
        finalize(dispatcher, job.job_id, job.output.uri)
        assert not job.output.has_ended()
        Reconciler(dispatcher).scan()
        assert ledger.queued("rankmill.control") == []
    finalize(dispatcher, job.job_id, job.output.uri)
    assert job.output.is_success()


def test_a_finalize_that_was_frozen_leaves_the_end_to_its_successor(
    job: Job, ledger: Ledger, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(claim: Claim) -> None:
        raise ClaimLost("frozen")

    monkeypatch.setattr(Claim, "check", lost)
    finalize(dispatcher, job.job_id, job.output.uri)
    assert not job.output.has_ended() and state(ledger, job) is JobState.FINALIZING


def test_a_bug_in_finalize_fails_the_job_with_its_first_line(
    job: Job, ledger: Ledger, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def buggy(job: Job) -> None:
        raise KeyError("unforeseen\nsecond line")

    monkeypatch.setattr("worker.finalize.check_queries", buggy)
    finalize(dispatcher, job.job_id, job.output.uri)
    failure = job.output.read_failure()
    assert failure is not None and failure.exit_code == 1
    assert failure.message == r"unexpected KeyError: 'unforeseen\nsecond line'"
    assert state(ledger, job) is JobState.FAILED


def test_a_bug_in_preparing_fails_the_job(
    tmp_path: Path, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def buggy(*_: object) -> None:
        raise ValueError("unforeseen")

    monkeypatch.setattr("producer.jobs.prepare_job.prepare", buggy)
    source = write(pairs(2, 3), tmp_path / "in.parquet")
    handle = submit(source, tmp_path / "out", model_id="null", cluster=True)
    prepare_job(dispatcher, handle.job_id, handle.output.uri)
    with pytest.raises(JobFailed, match="unexpected ValueError: unforeseen"):
        handle.wait(timeout_s=5)


def test_preparations_ended_by_transient_errors_do_not_count_as_deaths(
    tmp_path: Path, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise StorageUnavailable("throttled")

    monkeypatch.setattr("producer.jobs.prepare_job.prepare", away)
    source = write(pairs(2, 3), tmp_path / "in.parquet")
    handle = submit(source, tmp_path / "out", model_id="null", cluster=True)
    for _ in range(settings().max_tries + 1):
        with pytest.raises(StorageUnavailable):
            prepare_job(dispatcher, handle.job_id, handle.output.uri)


def test_a_result_removed_half_way_is_removed_by_the_next(
    job: Job, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    finalize(dispatcher, job.job_id, job.output.uri)
    remove, n_removed = storage.remove, 0

    def removing(uri: str) -> None:
        nonlocal n_removed
        assert not job.output.is_success() or uri.endswith(("end.json", "_SUCCESS"))
        assert cleanup.foreign_names(job.output) == []
        if job.output.reported_shards():
            assert len(job.output.part_names()) == job.plan.n_shards
        remove(uri)
        n_removed += 1

    monkeypatch.setattr(storage, "remove", removing)
    cleanup.remove_result(job.output)
    assert n_removed > job.plan.n_shards and storage.names(job.output.uri) == []
