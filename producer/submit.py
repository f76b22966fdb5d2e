"""Submit a job: validate, plan, write it under the output, put it to work.

from producer.submit import submit

job = submit("candidates.parquet", "scored/", model_id="BAAI/bge-reranker-v2-m3", top_k=10)
job.wait()
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from producer.follow import JobHandle
from producer.plan import read_source, resolve_columns, shard_bounds
from rankmill import dispatch, models, storage
from rankmill.errors import InputError, OutputTaken
from rankmill.ledger import Ledger
from rankmill.output import Job
from rankmill.settings import settings
from rankmill.spec import JobRecord, JobSpec, Plan, job_id_for, parse


def submit(
    input_uri: str | Path, output_uri: str | Path, *, overwrite: bool = False, **options: Any
) -> JobHandle:
    """Submit a job to the cluster of RANKMILL_BROKER_URL; `options` are JobSpec fields.

    The same job again is a no-op where it is done and goes on where it is not.

    Raises:
        InputError: bad input or options; nothing was written.
        OutputTaken: the output holds another job's result, or files that are not ours.
        BrokerUnavailable: Redis does not answer; nothing was written.
    """
    values = {"input_uri": str(input_uri), "output_uri": str(output_uri), **options}
    return submit_spec(parse(JobSpec, values, "job"), overwrite=overwrite)


def submit_spec(spec: JobSpec, *, overwrite: bool = False) -> JobHandle:
    """As `submit`, from a whole spec."""
    return submit_job(plan_job(spec), overwrite=overwrite)


def submit_job(job: Job, *, overwrite: bool = False) -> JobHandle:
    """As `submit`, from a planned job."""
    ledger = Ledger.connect(settings())
    ledger.n_workers()  # is Redis there? Before anything is written
    handle = JobHandle(job.job_id, job.output, ledger)
    if _is_done_or_running(job, ledger, overwrite):
        return handle
    job.output.write_job(job.record)
    job.output.write_plan(job.plan)
    dispatch.start(ledger, settings(), job)
    return handle


def plan_job(spec: JobSpec) -> Job:
    """The job that a spec over its input as it is now makes; reads footers, writes nothing.

    Raises:
        InputError: bad input or options.
    """
    spec = _with_absolute_paths(spec)
    _check_places(spec)
    if models.is_null(spec.model_id):
        models.null_rate(spec.model_id)
    elif spec.model_id == models.DEMO or models.is_local(spec.model_id):
        models.locate(spec.model_id)
    source = read_source(spec.input_uri)
    job_id = job_id_for(spec, source.files)
    plan = Plan(
        job_id=job_id,
        files=source.files,
        columns=resolve_columns(spec, source.schema),
        shard_bounds=shard_bounds(source.n_rows, spec.shard_pairs),
    )
    return Job(JobRecord(job_id=job_id, spec=spec, submitted_at=datetime.now(UTC)), plan)


def _with_absolute_paths(spec: JobSpec) -> JobSpec:
    """Workers run elsewhere, so that a relative path means nothing to them."""
    changes = {
        "input_uri": storage.absolute(spec.input_uri),
        "output_uri": storage.absolute(spec.output_uri),
    }
    if models.is_local(spec.model_id):
        changes["model_id"] = str(Path(spec.model_id).expanduser().absolute())
    return spec.model_copy(update=changes)


def _check_places(spec: JobSpec) -> None:
    output = storage.local_path(spec.output_uri)
    if output.is_file():
        raise InputError(f"{spec.output_uri} is a file; the output is a folder")
    inside = storage.local_path(spec.input_uri)
    if output == inside or (inside.is_dir() and inside in output.parents):
        raise InputError(
            f"the output {spec.output_uri} lies in the input; it would be read as such"
        )


def _is_done_or_running(job: Job, ledger: Ledger, overwrite: bool) -> bool:
    """Make the output free for a job, or find that there is nothing to do.

    Raises:
        OutputTaken: something else is there.
    """
    output = job.output
    foreign = output.foreign_names()
    if foreign:
        raise OutputTaken(
            f"{output.uri} holds other files ({foreign[0]}); give an empty or a new folder"
        )
    earlier = output.read_job()
    if earlier is None:
        output.remove_result()
        return False
    if _runs(earlier.job_id, ledger):
        if earlier.job_id == job.job_id:
            return True
        raise OutputTaken(f"{output.uri}: job {earlier.job_id} is still running there")
    if overwrite:
        output.remove_result()
        return False
    if earlier.job_id != job.job_id:
        raise OutputTaken(
            f"{output.uri} holds the result of another job ({earlier.job_id}: other input or "
            "options); give another folder, or --overwrite"
        )
    if output.is_success():
        return True
    output.reopen()
    return False


def _runs(job_id: str, ledger: Ledger) -> bool:
    counts = ledger.counts(job_id)
    return counts is not None and not counts.state.is_final
