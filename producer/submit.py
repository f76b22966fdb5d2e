"""Submit a job: validate, plan, write it under the output, put it to work.

from producer.submit import submit

job = submit("candidates.parquet", "scored/", model_id="BAAI/bge-reranker-v2-m3", top_k=10)
job.wait()
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from producer.follow import JobHandle
from producer.inputs.find import find
from producer.inputs.iceberg import located
from producer.plan import check_names, make_plan, read_pairs
from producer.prepare.earlier import find_earlier
from producer.prepare.inputs import find_inputs, needs_prepare, pinned
from producer.prepare.layouts import check_layout
from rankmill import control_folder, dispatch, models, storage
from rankmill.contract import parse
from rankmill.errors import InputError, OutputTaken
from rankmill.ledger import Ledger
from rankmill.local_run import Hold, check_free, hand_to_cluster
from rankmill.output import Job, Output
from rankmill.settings import settings
from rankmill.spec import InputFile, JobRecord, JobSpec, Plan, job_id_for


def submit(
    input_uri: str | Path, output_uri: str | Path, *, overwrite: bool = False, **options: Any
) -> JobHandle:
    """Submit a job to the cluster of RANKMILL_BROKER_URL; `options` are JobSpec fields.

    The same job again is a no-op where it is done and goes on where it is not.

    Raises:
        InputError: bad input or options; nothing was written.
        OutputTaken: the output holds another job's result, or files that are not ours.
        StorageRefused: the output cannot be written to, or lets two writers both win; nothing is
            changed.
        BrokerUnavailable: Redis does not answer, or takes no writes; nothing was changed.
    """
    values = {"input_uri": str(input_uri), "output_uri": str(output_uri), **options}
    return submit_spec(parse(JobSpec, values, "job"), overwrite=overwrite)


def submit_spec(spec: JobSpec, *, overwrite: bool = False) -> JobHandle:
    """As `submit`, from a whole spec."""
    return submit_checked(check(spec), overwrite=overwrite)


@dataclass(frozen=True)
class Checked:
    """A job that may be submitted; without a plan where something must be prepared first."""

    record: JobRecord
    plan: Plan | None
    files: tuple[InputFile, ...]

    @cached_property
    def output(self) -> Output:
        return Output(self.record.spec.output_uri)


def check(spec: JobSpec, job_id: str | None = None) -> Checked:
    """The job that a spec over its input as it is now makes; reads footers, writes nothing.

    Args:
        job_id: the job's name; without it, one that comes from the spec and the input's files.

    Raises:
        InputError: bad input or options.
    """
    spec = check_options(spec)
    found = find(spec.input_uri, spec.input_version)
    spec = pinned(spec, found)
    if needs_prepare(spec, found):
        files = find_inputs(spec, found)
        source = None
    else:
        source = read_pairs(spec, found)
        files = source.files
        check_layout(spec, files[0].uri, source.schema)
        check_names(files[0].uri, source.schema)
    _check_apart(spec, files)
    content_id = job_id_for(spec, files)
    spec, no_reuse = find_earlier(spec)
    looks_up = spec.reuse_from is not None and no_reuse is None
    record = JobRecord(
        job_id=job_id or content_id,
        spec=spec,
        submitted_at=datetime.now(UTC),
        prepares=source is None or looks_up,
        content_id=content_id,
        no_reuse=no_reuse,
    )
    plan = make_plan(record.job_id, spec, source) if source else None
    return Checked(record, None if looks_up else plan, files)


def check_options(spec: JobSpec) -> JobSpec:
    """The part of `check` that needs no input: the spec with absolute paths.

    Raises:
        InputError: bad output or model.
    """
    spec = _with_absolute_paths(spec)
    _check_output(spec)
    models.check_allowed(spec.model_id)
    if models.is_null(spec.model_id):
        models.null_rate(spec.model_id)
    elif spec.model_id == models.DEMO or models.is_local(spec.model_id):
        models.locate(spec.model_id)
    return spec


def plan_job(spec: JobSpec) -> Job:
    """As `check`, of an input that needs no preparation."""
    checked = check(spec)
    assert checked.plan is not None
    return Job(checked.record, checked.plan)


def submit_checked(job: Checked, *, overwrite: bool = False, hold: Hold | None = None) -> JobHandle:
    """As `submit`, from a job that was checked.

    Args:
        hold: of a run on this machine, with its private cluster; it keeps others from the output.
    """
    ledger = Ledger.connect(settings())
    ledger.check_writable()  # before anything on storage is changed
    job_id, output = job.record.job_id, job.output
    handle = JobHandle(job_id, output, ledger)
    goes_on = _is_there(job, ledger, overwrite)
    if goes_on and (_runs(job_id, ledger) or (output.is_success() and not output.lost_parts())):
        return handle
    check_free(output)
    control_folder.check_writable(output.uri, output.control_uri)
    if hold is not None:
        hold.take(output, job_id, settings().broker_url)
    else:
        hand_to_cluster(output, job_id)
    if goes_on:
        with output.kept_on_error():
            output.reopen()
            dispatch.start_again(ledger, settings(), output)
        return handle
    output.remove_result()
    try:
        output.write_job(job.record)
        if job.plan is not None:
            output.write_plan(job.plan)
        dispatch.start_again(ledger, settings(), output)
    except BaseException:
        output.remove_result()  # a job that Redis does not know would look as if it ran
        raise
    return handle


def _with_absolute_paths(spec: JobSpec) -> JobSpec:
    """Workers run elsewhere, so that a relative path means nothing to them."""
    changes = {
        "input_uri": _absolute_all(spec.input_uri),
        "output_uri": storage.absolute(spec.output_uri),
    }
    for name in ("queries", "corpus"):
        given = getattr(spec, name)
        if given is not None:
            changes[name] = _absolute_all(given)
    if not models.is_built_in(spec.model_id) and models.is_local(spec.model_id):
        changes["model_id"] = str(Path(spec.model_id).expanduser().absolute())
    return spec.model_copy(update=changes)


def _absolute_all(uris: str) -> str:
    return ",".join(storage.absolute(located(place)) for place in storage.places(uris))


def _check_output(spec: JobSpec) -> None:
    if storage.exists(spec.output_uri):
        raise InputError(f"{spec.output_uri} is a file; the output is a folder")
    control_folder.check_place(spec.output_uri)


def _check_apart(spec: JobSpec, files: Iterable[InputFile]) -> None:
    """Refuse an output that would be read as input, or that holds input; its control folder too."""
    output = Output(spec.output_uri)
    control = control_folder.beside(output.uri)
    written = (output.part_uri(0), storage.child(control, "job.json"))
    for uris in filter(None, (spec.input_uri, spec.queries, spec.corpus)):
        for place in storage.places(uris):
            if any(storage.names_file(place, uri) for uri in written):
                raise InputError(f"the output {spec.output_uri} lies in the input {place}")
    for file in files:
        for folder in (output.uri, control):
            if storage.lies_in(file.uri, folder):
                raise InputError(f"the input {file.uri} lies in {folder}, which the job writes to")


def _is_there(job: Checked, ledger: Ledger, overwrite: bool) -> bool:
    """Whether the output holds the same job from before, to be gone on with.

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
        return False
    if record.job_id != job.record.job_id or overwrite:
        _check_replaceable(record, job, ledger, overwrite)
        return False
    changed = output.changed_part()
    if changed is not None:
        raise OutputTaken(
            f"{storage.child(output.uri, changed)} is not the part that job {record.job_id} wrote; "
            "remove it to have its rows scored again, or --overwrite all parts"
        )
    # Without a plan, and with nothing to prepare, its submitter died before it was written.
    return record.prepares or output.read_plan() is not None


def _check_replaceable(record: JobRecord, job: Checked, ledger: Ledger, overwrite: bool) -> None:
    if _runs(record.job_id, ledger):
        raise OutputTaken(f"{job.output.uri}: job {record.job_id} is still running there")
    was_removed = not job.output.part_names() and job.output.reported_shards()
    if not overwrite and not was_removed:
        raise OutputTaken(
            f"{job.output.uri} holds the result of another job ({record.job_id}: other input or "
            "options); give another folder, or --overwrite"
        )


def _runs(job_id: str, ledger: Ledger) -> bool:
    counts = ledger.counts(job_id)
    return counts is not None and not counts.state.is_final
