"""Make a job's page, `report.html`: one file that needs no network and runs no script."""

from __future__ import annotations

from collections.abc import Iterable

from rankmill import storage
from rankmill.contract.results import Manifest, ShardReport
from rankmill.errors import InputError
from rankmill.logs import get_logger
from rankmill.output.output import Output
from rankmill.report.gather import gather

log = get_logger(__name__)


def write_report(
    output: Output,
    reports: Iterable[ShardReport] | None = None,
    manifest: Manifest | None = None,
) -> str:
    """Make the page of a job from what stands on storage, finished or not; where it is.

    Args:
        reports: the job's, where the caller has them already; none of them is kept.
        manifest: of a job that is about to be marked as done.

    Raises:
        JobUnknown: no job was submitted there.
        InputError: what makes pages is not installed.
    """
    record = output.read_job()
    if record is None:
        raise output.no_job()
    try:
        from rankmill.report.page import render  # the extra `report` is not everywhere
    except ModuleNotFoundError as error:
        raise InputError(f"a report needs {error.name}: pip install 'rankmill[report]'") from error
    found = output.reports(record.job_id) if reports is None else reports
    page = render(gather(output, record, found, manifest or output.read_manifest()))
    storage.write_bytes(output.report_uri, page.encode())
    return output.report_uri


def report_success(output: Output, reports: Iterable[ShardReport], manifest: Manifest) -> None:
    """The page of a job about to be marked as done; whatever goes wrong, the job goes on."""
    try:
        write_report(output, reports, manifest)
    except Exception:
        log.exception("no report; `rankmill report` makes it anew", job_id=manifest.job_id)


def report_anew(output: Output, job_id: str) -> None:
    """The page of a job that something was found out about after its end."""
    try:
        write_report(output)
    except Exception:
        log.exception("no report; `rankmill report` makes it anew", job_id=job_id)


def report_end(job_id: str, output_uri: str) -> None:
    """The page of a job that failed or was cancelled, unless it goes on already."""
    output = Output(output_uri)
    try:
        record = output.read_job()
        if record is not None and record.job_id == job_id and output.has_ended():
            write_report(output)
    except Exception:
        log.exception("no report; `rankmill report` makes it anew", job_id=job_id)
