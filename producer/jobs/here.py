"""Run a job on this machine, to its end: a private cluster, as `rankmill run` and Python use it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from producer.cluster.local import devices, local_cluster
from producer.jobs.handle import JobHandle, JobStatus
from rankmill import broker, storage
from rankmill.contract.job_state import JobState
from rankmill.ledger import jobs as ledger
from rankmill.notify import end_event, wait_until_delivered
from rankmill.output.local_run import Hold
from rankmill.report import report_end
from rankmill.settings import settings

_TELL_S = 15.0
_VARIABLE = "RANKMILL_BROKER_URL"

Follow = Callable[[JobHandle, Iterator[JobStatus]], JobStatus]
Say = Callable[[str], None]


def last_of(handle: JobHandle, statuses: Iterator[JobStatus]) -> JobStatus:
    """Wait without a sign, and return the last status."""
    *_, last = statuses
    return last


def say_nothing(line: str) -> None:
    """Keep a remark to oneself."""


def run_here(
    start: Callable[[Hold], JobHandle], follow: Follow = last_of, say: Say = say_nothing
) -> tuple[JobHandle, JobStatus]:
    """Put a job to work on a private cluster, which is this process's broker until it has ended.

    Args:
        start: submits or resumes the job.
        follow: consumes the statuses, and returns the last one.
        say: shows a remark about the devices or the webhook.

    Raises:
        InputError: no Redis can be started, or no device is what was asked for.
    """
    found = devices(settings().device)
    for surprise in sorted({each.surprise for each in found if each.surprise}):
        say(f"scoring on {', '.join(each.name for each in found)}: {surprise}")
    with Hold() as hold, local_cluster(found) as cluster, _on_broker(cluster.broker_url):
        handle = start(hold)

        def statuses() -> Iterator[JobStatus]:
            for current in handle.watch():
                cluster.check()
                hold.check()
                if current.state is JobState.WAITING:  # for the private workers, which are starting
                    changes = {"state": JobState.RUNNING, "reason": ""}
                    current = current.model_copy(update=changes)
                yield current

        status = follow(handle, statuses())
        _settle(handle, status.state, say)
    return handle, status


@contextmanager
def _on_broker(url: str) -> Iterator[None]:
    """Use a broker for the block, whatever has connected before it."""
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = url
    _forget_connections()
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_VARIABLE, None)
        else:
            os.environ[_VARIABLE] = before
        _forget_connections()


def _forget_connections() -> None:
    for cached in (settings, broker.app, ledger.ledger):
        cached.cache_clear()


def _settle(handle: JobHandle, state: JobState, say: Say) -> None:
    """Write the page of a job without success, leave no empty output, and notify the webhook.

    Nobody does it later, since the cluster ends with the job.
    """
    if not state.is_success:
        report_end(handle.job_id, handle.output.uri)
        storage.remove_empty_folder(handle.output.uri)  # its record is next to it
    if settings().webhook_url is None:
        return
    event = end_event(handle.output, None)
    if event is not None and not wait_until_delivered(handle.ledger, event, _TELL_S):
        say("the webhook did not take the job's end")
