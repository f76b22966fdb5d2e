"""Write a job's page, `report.html`: one file that needs no network and runs no script."""

from __future__ import annotations

from collections.abc import Iterable

from rankmill import storage
from rankmill.contract.results import Manifest, ShardReport
from rankmill.errors import InputError
from rankmill.logs import get_logger
from rankmill.output.output import Output
from rankmill.report.extras import Extras
from rankmill.report.gather import gather

log = get_logger(__name__)


def write_report(
    output: Output,
    reports: Iterable[ShardReport] | None = None,
    manifest: Manifest | None = None,
    extras: Extras | None = None,
) -> str:
    """Write the page of a job from its output, finished or not, and return the page's URI.

    Args:
        output: the job's output folder.
        reports: the job's shard reports, if the caller has them; each is read once.
        manifest: of a job that is about to be marked as done.
        extras: judgments, an earlier run and a price, for this page.

    Raises:
        JobUnknown: no job was submitted there.
        InputError: the extra `report` is not installed.
    """
    record = output.read_job()
    if record is None:
        raise output.no_job()
    try:
        from rankmill.report.page import render  # the extra `report` is not everywhere
    except ModuleNotFoundError as error:
        raise InputError(f"a report needs {error.name}: pip install 'rankmill[report]'") from error
    if reports is None:
        reports = output.reports(record.job_id)
    facts = gather(output, record, reports, manifest or output.read_manifest(), extras)
    page = render(facts)
    storage.write_bytes(output.report_uri, page.encode())
    return output.report_uri


def try_report(
    output: Output,
    job_id: str,
    reports: Iterable[ShardReport] | None = None,
    manifest: Manifest | None = None,
) -> None:
    """Write the page as `write_report`; log any error, since a page must not fail a job."""
    try:
        write_report(output, reports, manifest)
    except Exception:
        log.exception("report not written; run `rankmill report`", job_id=job_id)


def report_ended(job_id: str, output_uri: str) -> None:
    """Write the page of a job that failed or was cancelled; do nothing if it was resumed.

    Errors are logged as by `try_report`.
    """
    output = Output(output_uri)
    try:
        record = output.read_job()
        has_ended = record is not None and record.job_id == job_id and output.has_ended()
    except Exception:
        log.exception("report not written; run `rankmill report`", job_id=job_id)
    else:
        if has_ended:
            try_report(output, job_id)
