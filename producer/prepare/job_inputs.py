"""Find all files of a job's input, its queries and its corpus, and pin the tables' versions."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from producer.formats.file_format import FileFormat
from producer.formats.lists import USUAL_LISTS
from producer.inputs.columns import key_columns
from producer.inputs.find import FoundInput, find
from producer.inputs.source import read_source
from producer.inputs.usual_names import Named, with_usual_names
from producer.prepare.open_dataset import open_candidates, open_dataset
from producer.tables.database import Database
from rankmill.contract.job import JobSpec
from rankmill.contract.plan import InputFile, InputRole
from rankmill.errors import InputError
from rankmill.tables.parquet import read_footer
from rankmill.tables.schema import plain_schema


def needs_prepare(spec: JobSpec, found: FoundInput | None = None) -> bool:
    """Return whether the input is not Parquet with pairs grouped by query, all of which count.

    `found` is the input if it was found already.

    Raises:
        InputError: nothing is there.
    """
    if spec.layout != "pairs" or spec.cluster:
        return True
    found = found or find(spec.input_uri, spec.input_version)
    has_deleted = found.table is not None and bool(found.table.deleted)
    return has_deleted or found.file_format != FileFormat.PARQUET


def find_inputs(spec: JobSpec, found: FoundInput | None = None) -> tuple[InputFile, ...]:
    """Return all files of the input, the queries and the corpus, in this order, each by name.

    Only footers and the first lines of text are read: `n_rows` is 0 for text. `found` is the
    input if it was found already.

    Raises:
        InputError: nothing is there; the layout is another one; columns are missing or of the
            wrong type; ids cannot be joined; or another fault shows in what is read.
    """
    found = found or find(spec.input_uri, spec.input_version)
    of_role: dict[InputRole, FoundInput] = {"input": found, **_find_texts(spec)}
    lists = USUAL_LISTS if spec.layout == "lists" else ()
    files: list[InputFile] = []
    for role, named in of_role.items():
        if named.file_format == FileFormat.PARQUET:
            in_all = (*key_columns(spec), *lists) if role == "input" else ()
            stored = read_source(named, in_all=in_all).files
            files += (file.model_copy(update={"role": role}) for file in stored)
            continue
        files += (
            InputFile(
                uri=file.uri, n_rows=0, size_bytes=file.size_bytes, state=file.state, role=role
            )
            for file in named.files
        )
    with Database() as database:
        open_dataset(_pinned(spec, of_role), tuple(files), database, only_beginning=True)
    return tuple(files)


def pinned(spec: JobSpec, found: FoundInput) -> Named:
    """Return the spec with its tables' versions, so that later rows do not count, and its columns.

    Raises:
        InputError: the queries or the corpus are missing, not found or have no effect, or several
            columns may be a text.
    """
    if spec.columns is not None and found.file_format not in (FileFormat.CSV, FileFormat.TSV):
        raise InputError(
            f"--columns names the columns of CSV and TSV, but {found.files[0].uri} is "
            f"{found.file_format}; leave it out"
        )
    spec = _pinned(spec, {"input": found, **_find_texts(spec)})
    return with_usual_names(spec, found.files[0].uri, _first_schema(spec, found))


def _first_schema(spec: JobSpec, found: FoundInput) -> pa.Schema:
    """Return the columns of an input's first file, or of its table."""
    if found.table is not None:
        return read_source(found).schema
    if found.file_format == FileFormat.PARQUET:
        return plain_schema(read_footer(found.files[0]).schema)
    first = found.files[0]
    file = InputFile(uri=first.uri, n_rows=0, size_bytes=first.size_bytes, state=first.state)
    with Database() as database:
        return open_candidates(spec, (file,), database, only_beginning=True).schema


def _pinned(spec: JobSpec, of_role: Mapping[InputRole, FoundInput]) -> JobSpec:
    versions = {
        f"{role}_version": found.table.version
        for role, found in of_role.items()
        if found.table is not None
    }
    return spec.model_copy(update=versions)


def _find_texts(spec: JobSpec) -> dict[InputRole, FoundInput]:
    """Find the queries and the corpus of a run.

    Raises:
        InputError: a run lacks one of them, the job is not a run, or they are not found.
    """
    for flag, uris, version in (
        ("--queries", spec.queries, spec.queries_version),
        ("--corpus", spec.corpus, spec.corpus_version),
    ):
        if spec.layout == "run" and uris is None:
            raise InputError(f"a run needs its texts: give {flag}")
        if spec.layout != "run" and uris is not None:
            raise InputError(f"{flag} is for --layout run, not {spec.layout}")
        if spec.layout != "run" and version is not None:
            raise InputError(f"{flag}-version is for --layout run, not {spec.layout}")
    if spec.queries is None or spec.corpus is None:
        return {}
    return {
        "queries": find(spec.queries, spec.queries_version, "--queries"),
        "corpus": find(spec.corpus, spec.corpus_version, "--corpus"),
    }
