"""A run of a job on this machine, to its end, on a private cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from producer.cluster.local import devices, local_cluster
from producer.jobs.handle import JobHandle
from producer.jobs.status import JobStatus
from rankmill import broker, storage
from rankmill.contract.job_state import JobState
from rankmill.ledger import jobs as ledger
from rankmill.notify import end_event, wait_until_delivered
from rankmill.output.local_run import Hold
from rankmill.report import report_ended
from rankmill.settings import settings, with_variables

_NOTIFY_S = 15.0
_VARIABLE = "RANKMILL_BROKER_URL"

Follow = Callable[[JobHandle, Iterator[JobStatus]], JobStatus]
Say = Callable[[str], None]


def last_of(handle: JobHandle, statuses: Iterator[JobStatus]) -> JobStatus:
    """Consume the statuses silently, and return the last one."""
    *_, last = statuses
    return last


def say_nothing(line: str) -> None:
    """Drop a remark."""


def run_locally(
    start: Callable[[Hold], JobHandle], follow: Follow = last_of, say: Say = say_nothing
) -> tuple[JobHandle, JobStatus]:
    """Run a job on a private cluster, and return its handle and its last status.

    The private cluster is this process's broker until the job has ended.

    Args:
        start: submits or resumes the job.
        follow: consumes the statuses, and returns the last one.
        say: shows a remark about the devices or the webhook.

    Raises:
        InputError: no Redis can be started, or the requested device cannot be used.
    """
    chosen = devices(settings().device)
    for surprise in sorted({device.surprise for device in chosen if device.surprise}):
        say(f"scoring on {', '.join(device.name for device in chosen)}: {surprise}")
    with Hold() as hold, local_cluster(chosen) as cluster, _on_broker(cluster.broker_url):
        handle = start(hold)

        def statuses() -> Iterator[JobStatus]:
            for status in handle.watch():
                cluster.check()
                hold.check()
                if status.state is JobState.WAITING:  # the private workers are starting
                    running = {"state": JobState.RUNNING, "reason": ""}
                    status = status.model_copy(update=running)
                yield status

        last = follow(handle, statuses())
        if not last.state.is_success:
            report_ended(handle.job_id, handle.output.uri)
            storage.remove_empty_folder(handle.output.uri)  # its record is next to it
        # The cluster ends with the job, and nothing else could send the webhook's event.
        event = end_event(handle.output, None) if settings().webhook_url is not None else None
        if event is not None and not wait_until_delivered(handle.ledger, event, _NOTIFY_S):
            say("the webhook did not take the job's end")
    return handle, last


@contextmanager
def _on_broker(url: str) -> Iterator[None]:
    """Use a broker for the block, also where this process has connected to another before."""
    try:
        with with_variables({_VARIABLE: url}):
            _forget_connections()
            yield
    finally:
        _forget_connections()


def _forget_connections() -> None:
    broker.app.cache_clear()
    ledger.ledger.cache_clear()
