"""Read the plans of jobs, each once in a process."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

from rankmill.contract.job import JobRecord
from rankmill.contract.plan import Plan
from rankmill.errors import JobUnknown
from rankmill.output.output import Job, Output


def planned(output: Output, record: JobRecord) -> Job:
    """Return the job of a record, with its plan.

    Raises:
        JobUnknown: no such job was planned.
    """
    return Job(record, _plan(output, record.job_id, record.submitted_at), output)


# A plan of 30,000 shards is 4 MB of JSON, and does not change until its job is submitted again.
@lru_cache(maxsize=8)
def _plan(output: Output, job_id: str, submitted_at: datetime) -> Plan:
    plan = output.read_plan()
    if plan is None or plan.job_id != job_id:
        raise JobUnknown(f"{output.uri}: job {job_id} was not planned here")
    return plan
