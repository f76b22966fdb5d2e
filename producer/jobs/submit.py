"""Submit a job: validate, plan, write it under the output, put it to work.

from producer import submit

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

from producer.inputs.columns import check_names
from producer.inputs.find import find
from producer.inputs.layouts import check_layout
from producer.inputs.source import read_pairs
from producer.jobs.handle import JobHandle
from producer.jobs.plan import make_plan
from producer.lake.iceberg import located
from producer.prepare.sources import find_inputs, needs_prepare, pinned
from producer.reuse.earlier import find_earlier
from rankmill import storage
from rankmill.contract.base import parse
from rankmill.contract.job import InputFile, JobRecord, JobSpec, Plan, job_id_for
from rankmill.dispatch import Dispatcher
from rankmill.errors import InputError, JobFailed, OutputTaken
from rankmill.ledger.jobs import Ledger
from rankmill.models.locate import check_model_if_here
from rankmill.models.names import is_built_in_model, is_model_folder
from rankmill.models.permission import check_model_allowed
from rankmill.output import control_folder
from rankmill.output.local_run import Hold, check_free, hand_to_cluster, last_run
from rankmill.output.output import Job, Output
from rankmill.settings import settings


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
    return submit_spec(parse(JobSpec, values, "submit"), overwrite=overwrite)


def submit_spec(spec: JobSpec, *, overwrite: bool = False) -> JobHandle:
    """As `submit`, from a whole spec."""
    return submit_checked(check(spec), overwrite=overwrite)


# Options that decide which rows a job accepts and change nothing of the others, with the value of
# each that accepts all that any other value does.
_ACCEPTANCE: dict[str, str | None] = {
    "max_reject_rate": None,
    "duplicates": "keep",
    "damaged": "reject",
}


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
        InputError: bad output, model or length.
    """
    spec = _with_absolute_paths(spec)
    _check_output(spec)
    check_model_allowed(spec.model_id)
    check_model_if_here(spec.model_id, spec.model_revision, spec.max_length)
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
    dispatcher = Dispatcher(ledger, settings())
    ledger.check_writable()  # before anything on storage is changed
    output = job.output
    before = _is_there(job, ledger, overwrite)
    record = before if before is not None else job.record
    handle = JobHandle(record.job_id, output, ledger)
    if before is not None and output.is_success() and not output.lost_parts():
        check_reject_rate(output, record.spec.max_reject_rate)
        return handle
    if before is not None and _runs(record.job_id, ledger):
        if before != output.read_job():
            output.write_job(before)
        return handle
    check_free(output)
    control_folder.check_writable(output.uri, output.control_uri)
    if hold is not None:
        hold.take(output, record.job_id, settings().broker_url)
    else:
        hand_to_cluster(output, record.job_id)
    if before is not None:
        go_on(dispatcher, output, before)
        return handle
    if output.read_job() is not None:
        dispatcher.replace(output, job.record, job.plan)
        return handle
    output.remove_result()
    try:
        output.write_job(job.record)
        if job.plan is not None:
            output.write_plan(job.plan)
        dispatcher.start_again(output)
    except BaseException:
        output.remove_result()  # a job that Redis does not know would look as if it ran
        raise
    return handle


def go_on(dispatcher: Dispatcher, output: Output, record: JobRecord) -> None:
    """Put the job of an output to work again, accepting the rows that its new record accepts."""
    standing = output.read_job()
    with output.kept_on_error():
        output.reopen()
        if record == standing:
            dispatcher.start_again(output)
            return
        try:
            output.write_job(record)
            dispatcher.start_again(output)
        except BaseException:
            if standing is not None:
                output.write_job(standing)
            raise


def check_reject_rate(output: Output, max_reject_rate: float) -> None:
    """Raise JobFailed where a finished result has more rejects than are allowed now."""
    manifest = output.read_manifest()
    if manifest is not None and manifest.n_rejected > max_reject_rate * manifest.n_rows:
        raise JobFailed(
            f"{output.uri} is finished with {manifest.n_rejected} of {manifest.n_rows} rows "
            f"rejected, more than --max-reject-rate {max_reject_rate:g} allows; it stays as it is"
        )


def accepting(record: JobRecord, spec: JobSpec, content_id: str | None) -> JobRecord:
    """The record of a job that accepts what `spec` does and is the same in all else."""
    changes = {name: getattr(spec, name) for name in _ACCEPTANCE}
    accepted = record.spec.model_copy(update=changes)
    if accepted == record.spec:
        return record
    return record.model_copy(update={"spec": accepted, "content_id": content_id})


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
    if not is_built_in_model(spec.model_id) and is_model_folder(spec.model_id):
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


def _is_there(job: Checked, ledger: Ledger, overwrite: bool) -> JobRecord | None:
    """The same job from before, as it is to be gone on with; None where it begins.

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
    if overwrite or not _is_same(record, job):
        _check_replaceable(record, job, ledger, overwrite)
        return None
    changed = output.changed_part()
    if changed is not None:
        raise OutputTaken(
            f"{storage.child(output.uri, changed)} is not the part that job {record.job_id} wrote; "
            "remove it to have its rows scored again, or --overwrite all parts"
        )
    if not record.prepares and output.read_plan() is None:
        return None  # its submitter died before the plan was written
    return accepting(record, job.record.spec, job.record.content_id)


def _is_same(record: JobRecord, job: Checked) -> bool:
    """Whether a job is the one of a record, but perhaps accepts rows that it does not.

    What was scored under the stricter rule is the same under the looser one; not the other way
    round, but for the reject rate, which is held against the counts at the end.
    """
    ours = job.record
    if ours.job_id != ours.content_id:  # a schedule named it
        return record.job_id == ours.job_id
    as_before = {name: getattr(record.spec, name) for name in _ACCEPTANCE}
    before = ours.spec.model_copy(update=as_before)
    if job_id_for(before, job.files) != (record.content_id or record.job_id):
        return False
    return all(
        getattr(ours.spec, name) in (as_before[name], looser)
        for name, looser in _ACCEPTANCE.items()
        if looser is not None
    )


def _check_replaceable(record: JobRecord, job: Checked, ledger: Ledger, overwrite: bool) -> None:
    if _runs(record.job_id, ledger):
        raise OutputTaken(f"{job.output.uri}: job {record.job_id} is still running there")
    output, run = job.output, last_run(job.output)
    has_parts, is_reported = bool(output.part_names()), bool(output.reported_shards())
    was_removed = not has_parts and is_reported
    # Nothing was scored, and nobody works on it any more.
    is_over = output.has_ended() or (run is not None and not run.is_alive)
    is_void = is_over and not output.is_success() and not has_parts and not is_reported
    if not overwrite and not was_removed and not is_void:
        raise OutputTaken(
            f"{output.uri} holds the result of another job ({record.job_id}, {output.state()}: "
            f"other {_difference(record.spec, job.record.spec)}); give another folder, or "
            "--overwrite"
        )


def _difference(before: JobSpec, now: JobSpec) -> str:
    """The options that differ between two jobs, else what else makes them two."""
    ignored = {"version", "priority", "reuse_from"}
    names = [name for name in JobSpec.model_fields if name not in ignored]
    differing = [name for name in names if getattr(before, name) != getattr(now, name)]
    return ", ".join(differing) or "files of the input, or their content"


def _runs(job_id: str, ledger: Ledger) -> bool:
    counts = ledger.counts(job_id)
    return counts is not None and not counts.state.is_final
