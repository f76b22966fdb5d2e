"""Write the page of a job that ended without success."""

from __future__ import annotations

from rankmill import storage
from rankmill.dispatch import Dispatcher
from rankmill.guard import attempt
from rankmill.output.output import Output
from rankmill.report import report_ended


def report(dispatcher: Dispatcher, job_id: str, output_uri: str) -> None:
    """Write the page of an ended job; do nothing if it was resumed.

    Raises:
        Declined: this host does not see the output, or cannot write to it.
    """
    output = Output(output_uri)
    with attempt(dispatcher, job_id, output_uri):
        if output.read_job() is None:
            raise output.unseen(job_id)
        storage.check_conditional_puts(output.control_uri)
        report_ended(job_id, output_uri)
