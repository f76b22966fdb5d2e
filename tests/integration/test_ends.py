"""A job has one end: of a success, a failure and a cancel at once, the first one holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest

from producer.jobs.control import cancel
from producer.jobs.handle import JobHandle
from rankmill import storage
from rankmill.contract.job_state import JobState
from rankmill.contract.results import End
from rankmill.dispatch import Dispatcher
from rankmill.errors import InputError, JobFailed
from rankmill.ledger.jobs import Ledger
from rankmill.output import cleanup
from rankmill.output.output import Job
from tests.support.scored import scored
from worker.finalize import finalize

DONE = JobState.SUCCEEDED_WITH_REJECTS


on_disk_and_s3 = pytest.mark.parametrize("job", ["local", "s3"], indirect=True)


@pytest.fixture
def job(request: pytest.FixtureRequest, tmp_path: Path, ledger: Ledger) -> Job:
    on_s3 = getattr(request, "param", "local") == "s3"
    place = request.getfixturevalue("s3") if on_s3 else tmp_path
    job = scored(tmp_path, output_uri=f"{place}/out")
    ledger.open_job(job.record, job.plan, job.output.reports(job.job_id))
    return job


def handle(job: Job, ledger: Ledger) -> JobHandle:
    return JobHandle(job.job_id, job.output, ledger)


def check_all_readers_say(state: JobState, job: Job, ledger: Ledger) -> None:
    counts = ledger.counts(job.job_id)
    assert counts is not None and ledger.priorities() == {}
    seen = {job.output.state(), counts.state, handle(job, ledger).status().state}
    assert seen == {state}
    names = ("cancelled.json", "failure.json")
    ends = {each for each in names if storage.exists(job.output.control_file(each))}
    ends |= {"_SUCCESS"} if job.output.is_success() else set()
    assert len(ends) == 1


@on_disk_and_s3
def test_a_cancel_before_the_last_step_of_a_finalization_holds(
    job: Job, ledger: Ledger, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.finalize.try_report", lambda *_: cancel(handle(job, ledger)))
    finalize(dispatcher, job.job_id, job.output.uri)
    check_all_readers_say(JobState.CANCELLED, job, ledger)
    assert job.output.read_manifest() is None
    assert any("rankmill.report" in text for text in ledger.queued("rankmill.control"))


@on_disk_and_s3
def test_a_cancel_after_the_success_says_that_the_job_is_over(
    job: Job, ledger: Ledger, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finalized_meanwhile(*_: object) -> None:
        finalize(dispatcher, job.job_id, job.output.uri)

    monkeypatch.setattr("producer.jobs.control.check_takes_writes", finalized_meanwhile)
    with pytest.raises(InputError, match=f"job {job.job_id} is over: succeeded with rejects"):
        cancel(handle(job, ledger))
    check_all_readers_say(DONE, job, ledger)


def test_of_a_failure_and_a_cancel_the_first_holds(
    job: Job, ledger: Ledger, dispatcher: Dispatcher, events: Callable[[], list[dict[str, Any]]]
) -> None:
    assert dispatcher.cancel(job.output, job.job_id)
    dispatcher.fail(job.record, JobFailed("too late"), None)
    check_all_readers_say(JobState.CANCELLED, job, ledger)
    assert events() == []
    cleanup.reopen(job.output)
    dispatcher.start(job)
    dispatcher.fail(job.record, JobFailed("in time"), None)
    assert not dispatcher.cancel(job.output, job.job_id)
    check_all_readers_say(JobState.FAILED, job, ledger)
    assert [each["message"] for each in events()] != []


@on_disk_and_s3
def test_of_ends_at_the_same_moment_exactly_one_holds(job: Job) -> None:
    for _ in range(3):
        barrier, held = Barrier(2), list[str]()

        def end(name: str, mark: Callable[[], bool], barrier: Barrier, held: list[str]) -> None:
            barrier.wait()
            held += [name] if mark() else []

        threads = [
            Thread(target=end, args=("success", job.output.mark_success, barrier, held)),
            Thread(target=end, args=("cancelled", job.output.mark_cancelled, barrier, held)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(held) == 1
        assert job.output.is_success() == (held == ["success"])
        assert job.output.is_cancelled() == (held == ["cancelled"])
        cleanup.reopen(job.output)


@pytest.mark.parametrize("state", [DONE, JobState.CANCELLED])
def test_an_end_that_was_noted_by_a_process_that_died_is_finished(
    job: Job, ledger: Ledger, dispatcher: Dispatcher, state: JobState
) -> None:
    finalize(dispatcher, job.job_id, job.output.uri)  # for the manifest
    ledger.open_job(job.record, job.plan, job.output.reports(job.job_id))
    storage.remove(job.output.success_uri)
    noted = End(file="_SUCCESS" if state.is_success else "cancelled.json", content="")
    storage.write_bytes(job.output.control_file("end.json"), noted.to_json())
    before = job.output.read_manifest()
    finalize(dispatcher, job.job_id, job.output.uri)
    check_all_readers_say(state, job, ledger)
    assert job.output.read_manifest() == before  # nothing is finalized a second time
