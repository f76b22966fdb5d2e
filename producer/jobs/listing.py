"""Lists of jobs: those that Redis remembers, and this user's local runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from producer.jobs.handle import find_job
from producer.jobs.status import JobStatus, live_statuses
from rankmill.contract.job_state import JobState
from rankmill.errors import JobUnknown, RankmillError
from rankmill.ledger.jobs import Ledger
from rankmill.logs import get_logger
from rankmill.output import run_notes
from rankmill.output.local_run import last_run
from rankmill.settings import settings

log = get_logger(__name__)


def list_jobs() -> list[JobStatus]:
    """Return the jobs that Redis remembers, newest first; log a line for one that is broken."""
    ledger = Ledger.connect(settings())
    listed = []
    for status in live_statuses(ledger, ledger.job_ids()):
        if isinstance(status, JobStatus):
            listed.append(status)
        else:
            log.warning("job cannot be listed", error=str(status))
    return listed


def list_local_jobs() -> list[JobStatus]:
    """Return the jobs of local runs, newest first.

    Forgets those that are gone, handed to a cluster, or over for longer than `keep_finished_s`.
    """
    statuses = [status for uri in run_notes.noted() if (status := _local_status(uri)) is not None]
    long_ago = datetime.min.replace(tzinfo=UTC)
    return sorted(statuses, key=lambda each: each.submitted_at or long_ago, reverse=True)


def _local_status(output_uri: str) -> JobStatus | None:
    try:
        handle = find_job(output_uri)
        status = handle.status()
        is_local = last_run(handle.output) is not None
    except JobUnknown:
        run_notes.forget(output_uri)
        return None
    except RankmillError as error:
        log.warning("a local run cannot be listed", output_uri=output_uri, error=str(error))
        return None
    kept = timedelta(seconds=settings().keep_finished_s)
    is_old = status.ended_at is not None and datetime.now(UTC) - status.ended_at > kept
    is_over = status.state.is_final and status.state is not JobState.INTERRUPTED
    if not is_local or (is_over and is_old):  # a cluster lists its own jobs
        run_notes.forget(output_uri)
        return None
    return status
