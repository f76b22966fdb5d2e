"""Submit a job: validate, plan, write it under the output, put it to work.

from producer.submit import submit

job = submit("candidates.parquet", "scored/", model_id="BAAI/bge-reranker-v2-m3", top_k=10)
job.wait()
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from producer.follow import JobHandle
from producer.plan import read_source, resolve_columns
from producer.shards import shard_bounds
from rankmill import dispatch, models, storage
from rankmill.errors import InputError, JobUnknown, OutputTaken
from rankmill.ledger import Ledger
from rankmill.output import Job
from rankmill.settings import settings
from rankmill.spec import InputFile, JobRecord, JobSpec, Plan, encode_schema, job_id_for, parse


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
    earlier = _earlier_job(job, ledger, overwrite)
    if earlier is not None and (_runs(job.job_id, ledger) or job.output.is_success()):
        return handle
    if earlier is None:
        job.output.remove_result()
        job.output.write_job(job.record)
        job.output.write_plan(job.plan)
    job.output.reopen()
    dispatch.start(ledger, settings(), earlier or job)
    return handle


def plan_job(spec: JobSpec) -> Job:
    """The job that a spec over its input as it is now makes; reads footers, writes nothing.

    Raises:
        InputError: bad input or options.
    """
    spec = _with_absolute_paths(spec)
    _check_output(spec)
    if models.is_null(spec.model_id):
        models.null_rate(spec.model_id)
    elif spec.model_id == models.DEMO or models.is_local(spec.model_id):
        models.locate(spec.model_id)
    source = read_source(spec.input_uri, (spec.query_col, spec.document_col))
    _check_apart(spec, source.files)
    job_id = job_id_for(spec, source.files)
    plan = Plan(
        job_id=job_id,
        files=source.files,
        arrow_schema=encode_schema(source.schema),
        columns=resolve_columns(spec, source.schema),
        shard_bounds=shard_bounds(source.group_rows, source.group_bytes, spec.shard_pairs),
    )
    return Job(JobRecord(job_id=job_id, spec=spec, submitted_at=datetime.now(UTC)), plan)


def _with_absolute_paths(spec: JobSpec) -> JobSpec:
    """Workers run elsewhere, so that a relative path means nothing to them."""
    changes = {
        "input_uri": ",".join(map(storage.absolute, storage.places(spec.input_uri))),
        "output_uri": storage.absolute(spec.output_uri),
    }
    if not models.is_built_in(spec.model_id) and models.is_local(spec.model_id):
        changes["model_id"] = str(Path(spec.model_id).expanduser().absolute())
    return spec.model_copy(update=changes)


def _check_output(spec: JobSpec) -> None:
    if storage.exists(spec.output_uri):
        raise InputError(f"{spec.output_uri} is a file; the output is a folder")


def _check_apart(spec: JobSpec, files: Iterable[InputFile]) -> None:
    """Refuse an output that would be read as input, or that holds input."""
    for place in storage.places(spec.input_uri):
        if storage.lies_in(spec.output_uri, place):
            raise InputError(f"the output {spec.output_uri} lies in the input {place}")
    for file in files:
        if storage.lies_in(file.uri, spec.output_uri):
            raise InputError(f"the input {file.uri} lies in the output {spec.output_uri}")


def _earlier_job(job: Job, ledger: Ledger, overwrite: bool) -> Job | None:
    """The same job as it was planned before, to be gone on with; None to begin with a new plan.

    Raises:
        OutputTaken: something else is there, or at work there.
    """
    output = job.output
    foreign = output.foreign_names()
    if foreign:
        raise OutputTaken(
            f"{output.uri} holds other files ({foreign[0]}); give an empty or a new folder"
        )
    record = output.read_job()
    if record is None:
        return None
    if record.job_id != job.job_id or overwrite:
        _check_replaceable(record, job, ledger, overwrite)
        return None
    try:
        return output.load_job()
    except JobUnknown:
        return None  # its submitter died before the plan was written


def _check_replaceable(record: JobRecord, job: Job, ledger: Ledger, overwrite: bool) -> None:
    if _runs(record.job_id, ledger):
        raise OutputTaken(f"{job.output.uri}: job {record.job_id} is still running there")
    if not overwrite:
        raise OutputTaken(
            f"{job.output.uri} holds the result of another job ({record.job_id}: other input or "
            "options); give another folder, or --overwrite"
        )


def _runs(job_id: str, ledger: Ledger) -> bool:
    counts = ledger.counts(job_id)
    return counts is not None and not counts.state.is_final
