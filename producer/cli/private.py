"""What must be done before the private cluster of `rankmill run` goes, since nobody comes after."""

from __future__ import annotations

from rich.console import Console

from producer.follow import JobHandle
from rankmill.lifecycle import JobState
from rankmill.notify import end_event, wait_until_told
from rankmill.report import report_end
from rankmill.settings import settings

_TELL_S = 15.0


def settle(handle: JobHandle, state: JobState, console: Console) -> None:
    """Write the page of a job without success, and give the webhook a little time."""
    if not state.is_success:
        report_end(handle.job_id, handle.output.uri)
    if settings().webhook_url is None:
        return
    event = end_event(handle.output, None)
    if event is not None and not wait_until_told(handle.ledger, event, _TELL_S):
        console.print("rankmill: the webhook did not take the job's end", style="yellow")
