"""Decide how a CSV or TSV input is written: by --columns, its header, or a form that is known.

A CSV has a header, and quotes enclose its values. So does a TSV with a header, as pandas and
DuckDB write it. A TSV without one is as MS MARCO's files are: a quote is a character.
"""

from __future__ import annotations

from collections.abc import Collection

from producer.formats.file_format import FileFormat, is_run_line
from producer.formats.separated import Form, first_values
from producer.inputs.usual_names import known_names
from rankmill.contract.job import JobSpec
from rankmill.contract.plan import InputFile
from rankmill.errors import InputError

_N_TOP1000, _N_TRIPLE, _N_RANKS = 4, 3, 3


def form_of(spec: JobSpec, file: InputFile, file_format: FileFormat) -> Form | None:
    """Return the form of an input; None for the lines of a run.

    Args:
        spec: the job.
        file: its first file.
        file_format: CSV, TSV or a TREC run.

    Raises:
        InputError: the columns have no names, or the file is empty.
    """
    separator = "," if file_format == FileFormat.CSV else "\t"
    if file_format == FileFormat.TREC_RUN:
        return None
    if spec.columns is not None:
        return Form(separator, spec.columns, is_quoted=separator == ",")
    raw = Form(separator, is_quoted=False)
    values = [value.strip() for value in first_values(file, raw)]
    if separator == ",":
        return Form(separator)
    queries, documents, query_ids, doc_ids = known_names(spec)
    sides = {
        "pairs": (queries, documents),
        "lists": (queries, {"positive", "negative"}),
        "run": (query_ids, doc_ids | {"positive"}),
    }[spec.layout]
    if all(_unquoted(values) & side for side in sides):
        return Form(separator)
    if spec.layout == "run" and (len(values) == _N_RANKS or is_run_line("\t".join(values))):
        return None
    query_id, doc_id = spec.query_id_col or "query_id", spec.doc_id_col or "doc_id"
    if spec.layout == "pairs" and len(values) == _N_TOP1000 and _are_ids(values[:2]):
        names = (query_id, doc_id, spec.query_col, spec.document_col)
        return Form(separator, names, is_quoted=False)
    if spec.layout == "lists" and len(values) == _N_TRIPLE:
        return Form(separator, (spec.query_col, "positive", "negative"), is_quoted=False)
    if spec.layout != "run" and is_run_line("\t".join(values)):
        return None
    raise _unnamed(spec, file, values)


def form_of_texts(
    names: tuple[Collection[str], Collection[str]], file: InputFile, file_format: FileFormat
) -> Form | None:
    """Return the form of queries or documents; None for lines of an id and a text.

    Args:
        names: the names that a header may have for ids, and for texts.
        file: the first file.
        file_format: the format of the files.

    Raises:
        InputError: the file is empty, or is a run.
    """
    if file_format == FileFormat.CSV:
        return Form(",")
    if file_format != FileFormat.TSV:
        return None
    values = _unquoted(first_values(file, Form("\t", is_quoted=False)))
    return Form("\t") if all(values & set(side) for side in names) else None


def _unquoted(values: Collection[str]) -> set[str]:
    return {value.strip().removeprefix('"').removesuffix('"') for value in values}


def _are_ids(values: Collection[str]) -> bool:
    return all(value.isdigit() for value in values)


def _unnamed(spec: JobSpec, file: InputFile, values: list[str]) -> InputError:
    """Return the error for a first line that is neither a header nor of a known form."""
    flags = {
        "pairs": "--query-col and --document-col",
        "lists": "--query-col",
        "run": "--query-id-col and --doc-id-col",
    }[spec.layout]
    example = {
        "pairs": "query_id,doc_id,query,document",
        "lists": "query,positive,negative",
        "run": "query_id,doc_id,score",
    }[spec.layout]
    shown = ", ".join(value[:20] for value in values[:6]) or "nothing"
    return InputError(
        f"{file.uri}: line 1 has {len(values)} values ({shown}) and no names of --layout "
        f"{spec.layout}; with a header, name its columns by {flags}; without one, give "
        f"--columns, such as --columns {example}"
    )
