"""The check of a job before it is submitted: options, paths, columns and the plan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from producer.inputs.columns import check_names
from producer.inputs.find import find
from producer.inputs.layouts import check_layout
from producer.inputs.source import read_pairs
from producer.jobs.plan import make_plan
from producer.lake.iceberg import located
from producer.prepare.job_inputs import find_inputs, needs_prepare, pinned
from producer.reuse.earlier import find_earlier
from rankmill import storage
from rankmill.contract.job import JobRecord, JobSpec
from rankmill.contract.job_id import job_id_for
from rankmill.contract.plan import InputFile, Plan
from rankmill.errors import InputError
from rankmill.models.locate import check_model_if_here
from rankmill.models.names import absolute_model
from rankmill.models.permission import check_model_allowed
from rankmill.output import control_folder
from rankmill.output.output import Job, Output


@dataclass(frozen=True)
class Checked:
    """A job that may be submitted.

    Attributes:
        plan: None where something must be prepared first.
        files: the input's files, with those of queries and corpus.
        notes: which columns were found by their usual names.
    """

    record: JobRecord
    plan: Plan | None
    files: tuple[InputFile, ...]
    notes: tuple[str, ...] = ()

    @cached_property
    def output(self) -> Output:
        """Return the job's output folder."""
        return Output(self.record.spec.output_uri)


def check(spec: JobSpec, job_id: str | None = None) -> Checked:
    """Return the job that a spec makes of its input now; read footers, write nothing.

    Args:
        spec: the job, as the user gave it.
        job_id: the job's id; without it, one from the spec and the input's files.

    Raises:
        InputError: the input or an option is bad.
    """
    spec = check_options(spec)
    located_input = find(spec.input_uri, spec.input_version)
    named = pinned(spec, located_input)
    spec = named.spec
    if needs_prepare(spec, located_input):
        files = find_inputs(spec, located_input)
        source = None
    else:
        source = read_pairs(spec, located_input)
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
    return Checked(record, None if looks_up else plan, files, named.notes)


def check_options(spec: JobSpec) -> JobSpec:
    """Check what needs no input, and return the spec with absolute paths.

    Raises:
        InputError: the output, the model or the length is bad.
    """
    # Workers run elsewhere, where a relative path means another place.
    changes = {"output_uri": storage.absolute(spec.output_uri)}
    for name in ("input_uri", "queries", "corpus"):
        uris = getattr(spec, name)
        if uris is not None:
            places = (storage.absolute(located(place)) for place in storage.places(uris))
            changes[name] = ",".join(places)
    changes["model_id"] = absolute_model(spec.model_id)
    spec = spec.model_copy(update=changes)
    if storage.exists(spec.output_uri):
        raise InputError(f"{spec.output_uri} is a file; the output is a folder")
    control_folder.check_output_place(spec.output_uri)
    check_model_allowed(spec.model_id)
    check_model_if_here(spec)
    return spec


def plan_job(spec: JobSpec) -> Job:
    """Return the planned job of an input that needs no preparation.

    Raises:
        InputError: as `check`.
    """
    checked = check(spec)
    assert checked.plan is not None
    return Job(checked.record, checked.plan)


def _check_apart(spec: JobSpec, files: Iterable[InputFile]) -> None:
    """Refuse an output, or its control folder, that lies in the input or holds input."""
    output = Output(spec.output_uri)
    control = control_folder.next_to(output.uri)
    written = (output.part_uri(0), storage.child(control, "job.json"))
    for uris in filter(None, (spec.input_uri, spec.queries, spec.corpus)):
        for place in storage.places(uris):
            if any(storage.names_file(place, uri) for uri in written):
                raise InputError(f"the output {spec.output_uri} lies in the input {place}")
    for file in files:
        for folder in (output.uri, control):
            if storage.lies_in(file.uri, folder):
                raise InputError(f"the input {file.uri} lies in {folder}, which the job writes to")
