"""Run a whole job on this machine: check it, then score it on a private cluster."""

from __future__ import annotations

from dataclasses import dataclass

from producer.jobs.check import check
from producer.jobs.control import check_not_elsewhere
from producer.jobs.handle import JobHandle
from producer.jobs.local_run import Follow, Say, run_locally
from producer.jobs.status import JobStatus
from producer.jobs.submit import submit_checked
from rankmill.contract.job import JobSpec
from rankmill.models.locate import locate_model
from rankmill.models.names import is_null_model
from rankmill.models.scoring_settings import check_lengths


@dataclass(frozen=True)
class Run:
    """A job that was run.

    Attributes:
        was_done: whether it had been finished before.
    """

    handle: JobHandle
    status: JobStatus
    was_done: bool


def run_job(spec: JobSpec, *, overwrite: bool, follow: Follow, say: Say) -> Run:
    """Run a job to its end; bad input is reported before anything is started.

    Args:
        spec: the job.
        overwrite: remove another job's result from the output first.
        follow: consumes the statuses, and returns the last one.
        say: shows a remark.

    Raises:
        InputError: the input or an option is bad; nothing was written.
        OutputTaken: the output holds something else, or another run has it.
    """
    job = check(spec)
    for note in job.notes:
        say(note)
    if not is_null_model(spec.model_id):
        folder = locate_model(spec.model_id, spec.model_revision, has_template=spec.has_template)
        check_lengths(spec, folder)
    check_not_elsewhere(job.output)
    before = job.output.read_manifest()
    handle, status = run_locally(
        lambda hold: submit_checked(job, overwrite=overwrite, hold=hold), follow, say
    )
    is_same = before is not None and handle.output.read_manifest() == before
    return Run(handle, status, is_same and status.state.is_success)
