"""The rule for errors in a job's work: leave it, retry it, fail the job or refuse the message."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from rankmill.contract.job_state import JobState
from rankmill.dispatch import Dispatcher
from rankmill.errors import (
    ClaimLost,
    Declined,
    HostUnfit,
    InputError,
    MemoryShort,
    ModelNotAllowed,
    NotAllowed,
    RankmillError,
    StorageRefused,
    StorageUnavailable,
)
from rankmill.guard import attempt
from rankmill.host import worker_id
from rankmill.output.output import Job
from tests.support.finished import planned
from tests.support.inputs import pairs


@pytest.fixture
def job(tmp_path: Path, dispatcher: Dispatcher) -> Job:
    job = planned(pairs(2, 2), tmp_path)
    job.output.write_job(job.record)
    job.output.write_plan(job.plan)
    dispatcher.ledger.open_job(job.record, job.plan, ())
    return job


def outcome(dispatcher: Dispatcher, job: Job, error: Exception, *, is_known: bool = True) -> str:
    with attempt(dispatcher, job.job_id, job.output.uri, 0) as tried:
        tried.record = job.record if is_known else None
        raise error
    return tried.outcome


def state(dispatcher: Dispatcher, job: Job) -> JobState:
    counts = dispatcher.ledger.counts(job.job_id)
    assert counts is not None
    return counts.state


def test_lost_work_is_left(dispatcher: Dispatcher, job: Job) -> None:
    assert outcome(dispatcher, job, ClaimLost("frozen")) == "given up: frozen"
    assert state(dispatcher, job) is JobState.RUNNING


@pytest.mark.parametrize(
    ("error", "raised"), [(StorageUnavailable("away"), None), (MemoryError(), MemoryShort)]
)
@pytest.mark.parametrize("is_known", [True, False])
def test_a_transient_error_is_raised_for_a_retry(
    dispatcher: Dispatcher,
    job: Job,
    error: Exception,
    raised: type[Exception] | None,
    is_known: bool,
) -> None:
    with pytest.raises(raised or type(error)):
        outcome(dispatcher, job, error, is_known=is_known)
    assert state(dispatcher, job) is JobState.RUNNING


@pytest.mark.parametrize("error", [InputError("bad"), KeyError("bug")])
def test_a_permanent_error_fails_the_job(
    dispatcher: Dispatcher, job: Job, error: Exception
) -> None:
    assert outcome(dispatcher, job, error).startswith("failed its job: ")
    assert state(dispatcher, job) is JobState.FAILED
    failure = job.output.read_failure()
    assert failure is not None and failure.shard_index == 0


def test_a_message_whose_job_is_not_known_is_refused(dispatcher: Dispatcher, job: Job) -> None:
    assert outcome(dispatcher, job, InputError("bad"), is_known=False) == "refused"
    assert state(dispatcher, job) is JobState.FAILED and job.output.read_failure() is None


def test_a_bug_before_the_job_is_known_is_raised(dispatcher: Dispatcher, job: Job) -> None:
    with pytest.raises(KeyError):
        outcome(dispatcher, job, KeyError("bug"), is_known=False)
    assert state(dispatcher, job) is JobState.RUNNING


@pytest.mark.parametrize(
    "error",
    [StorageRefused("read-only"), NotAllowed("outside"), ModelNotAllowed("x"), HostUnfit("y")],
)
@pytest.mark.parametrize("is_known", [True, False])
def test_work_of_an_unfit_host_goes_to_another(
    dispatcher: Dispatcher, job: Job, error: RankmillError, is_known: bool
) -> None:
    dispatcher.ledger.workers.seen("other@host 1234", ["rankmill.score"])
    for _ in range(2):
        with pytest.raises(Declined, match=str(error)):
            outcome(dispatcher, job, error, is_known=is_known)
    assert state(dispatcher, job) is JobState.RUNNING and job.output.read_failure() is None
    (decline,) = dispatcher.ledger.declines.of_job(job.job_id, dispatcher.ledger.now())
    assert decline.reason == str(error) and decline.blame == error.blame


@pytest.mark.parametrize("is_known", [True, False])
def test_a_job_fails_if_no_live_worker_can_do_it(
    dispatcher: Dispatcher, job: Job, is_known: bool
) -> None:
    error = StorageRefused("disk full")
    assert f"disk full (on {socket.gethostname()})" in outcome(
        dispatcher, job, error, is_known=is_known
    )
    assert state(dispatcher, job) is JobState.FAILED
    failure = job.output.read_failure()
    assert (failure is not None and failure.exit_code == 2) is is_known


@pytest.mark.parametrize("is_flushed", [False, True])
def test_a_job_does_not_fail_while_workers_return_after_an_outage(
    dispatcher: Dispatcher, job: Job, is_flushed: bool
) -> None:
    ledger, queue, error = dispatcher.ledger, "rankmill.score", StorageRefused("disk full")
    ledger.workers.seen(worker_id(), [queue])
    ledger.workers.seen("other@host 1234", [queue])
    assert not ledger.workers.are_returning(queue)
    if is_flushed:
        ledger.redis.delete(f"rankmill:takers:{queue}")
    else:
        seen_at = ledger.now() - 120
        ledger.redis.zadd(
            f"rankmill:takers:{queue}", {worker_id(): seen_at, "other@host 1234": seen_at}
        )
        with pytest.raises(Declined):  # nobody has returned yet
            outcome(dispatcher, job, error)
    ledger.workers.seen(worker_id(), [queue])
    with pytest.raises(Declined):
        outcome(dispatcher, job, error)
    ledger.redis.delete("rankmill:returning")  # the other one does not return
    assert "disk full" in outcome(dispatcher, job, error)


def test_a_message_that_names_another_output_is_not_counted(
    dispatcher: Dispatcher, job: Job
) -> None:
    with attempt(dispatcher, job.job_id, "/elsewhere", 0) as tried:
        raise NotAllowed("outside")
    assert tried.outcome == "refused" and state(dispatcher, job) is JobState.RUNNING
    assert not dispatcher.ledger.declines.of_job(job.job_id, dispatcher.ledger.now())
