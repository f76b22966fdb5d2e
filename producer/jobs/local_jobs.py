"""List the jobs of this user's local runs: live, interrupted and lately ended ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from producer.jobs.handle import JobStatus, find_job
from rankmill.contract.job_state import JobState
from rankmill.errors import JobUnknown, RankmillError
from rankmill.logs import get_logger
from rankmill.output import run_notes
from rankmill.output.local_run import last_run
from rankmill.settings import settings

log = get_logger(__name__)


def local_jobs() -> list[JobStatus]:
    """The jobs of local runs, newest first; those that are gone or over for long are forgotten."""
    found = [status for uri in run_notes.noted() if (status := _status(uri)) is not None]
    long_ago = datetime.min.replace(tzinfo=UTC)
    return sorted(found, key=lambda each: each.submitted_at or long_ago, reverse=True)


def _status(output_uri: str) -> JobStatus | None:
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
    if not is_local or (is_over and is_old):  # a cluster has it, which lists it
        run_notes.forget(output_uri)
        return None
    return status
