"""A job in Python: wait for it, read its result, show it in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from os import PathLike, fspath

import pyarrow as pa
import pyarrow.parquet as pq

from producer.calls.bar import progress_bar
from producer.calls.keywords import in_python
from producer.jobs import handle as handles
from producer.jobs.handle import JobHandle
from producer.jobs.status import JobStatus, succeeded
from producer.quality.job_page import write_page
from producer.quality.rankings import finished_job
from rankmill import storage
from rankmill.errors import InputError, RankmillError
from rankmill.shown import escaped

_SHOWN = ("job_id", "state", "n_pairs_done", "n_rows", "n_rejected", "reason", "output_uri")


@dataclass(frozen=True)
class Job(JobHandle):
    """A submitted job. A notebook shows its status.

    Attributes:
        job_id: its id.
        output: its output folder; `output.uri` is the place.
    """

    @classmethod
    def of(cls, handle: JobHandle) -> Job:
        """Return the job of a handle."""
        return cls(handle.job_id, handle.output, handle.ledger, handle.run)

    def wait(self, timeout_s: float | None = None, *, progress: bool = False) -> JobStatus:
        """Block until the job has ended, and return its last status.

        Args:
            timeout_s: how long to wait; None for as long as it takes.
            progress: whether to show a progress bar.

        Raises:
            JobFailed: it failed or was cancelled.
            TimeoutError: it did not end in time. It continues.
        """
        with progress_bar(progress) as show:
            for status in self.watch_for(timeout_s):
                show(str(status.state), status.n_pairs_done, status.n_rows)
        return succeeded(status)

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the result as one Arrow table, in memory.

        Args:
            columns: the columns to read; None for all.

        Raises:
            InputError: the job has not succeeded, or has no such column.
        """
        with in_python():
            job = finished_job(self.output)
            parts = [self.output.part_uri(n) for n in range(job.plan.n_shards)]
            wanted = None if columns is None else list(columns)
            tables = [_read(part, wanted) for part in parts]
        return pa.concat_tables(tables)

    def report(
        self,
        *,
        qrels: str | PathLike[str] | None = None,
        compare: Job | None = None,
        price_per_hour: float | None = None,
    ) -> str:
        """Write the job's page again, and return its URI.

        Args:
            qrels: a file of judgments, to show nDCG before and after.
            compare: an earlier job, to show both side by side.
            price_per_hour: of a device, for the cost.

        Raises:
            InputError: a job is not finished or not comparable, the judgments cannot be used, or
                the extra `report` is not installed.
        """
        with in_python():
            return write_page(
                self.output,
                qrels=None if qrels is None else fspath(qrels),
                compare=None if compare is None else compare.output,
                price_per_hour=price_per_hour,
            )

    def _repr_html_(self) -> str:
        try:
            status = self.status()
        except RankmillError as error:
            return f"<p>job {escape(self.job_id)}: {escape(str(error))}</p>"
        shown = [(name, getattr(status, name)) for name in _SHOWN]
        rows = "".join(
            f"<tr><th>{name}</th><td>{escape(escaped(str(value)))}</td></tr>"
            for name, value in shown
            if value not in ("", None)
        )
        return f"<table>{rows}</table>"


def _read(part: str, columns: list[str] | None) -> pa.Table:
    with storage.open_file(storage.stat(part)) as content:
        file = pq.ParquetFile(content)
        missing = [name for name in columns or () if name not in file.schema_arrow.names]
        if missing:
            there = ", ".join(file.schema_arrow.names)
            raise InputError(f"the result has no column '{missing[0]}'; it has {there}")
        return file.read(columns)


def find_job(name: str) -> Job:
    """Return a job by its id or by its output folder; a folder is found without Redis too.

    Raises:
        JobUnknown: there is no such job.
        BrokerUnavailable: `name` is not a folder, and Redis does not answer.
    """
    return Job.of(handles.find_job(str(name)))
