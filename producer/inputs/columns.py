"""Choose the role of each input column, and its name in the output."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from producer.tables.column_kinds import NO_TITLE, find_title, is_text
from producer.tables.keys import key_type
from rankmill.contract.job import JobOptions
from rankmill.contract.plan import CANDIDATES_COLUMN, STATUS_COLUMNS, Columns
from rankmill.errors import InputError
from rankmill.tables.first_stage import SCORE, first_column, is_number
from rankmill.tables.schema import folded

_QUERY_ID, _DOC_ID = "query_id", "doc_id"


def key_columns(options: JobOptions) -> tuple[str, ...]:
    """Return the names of texts and ids, whether they are there or not."""
    title = "title" if options.title_col is None else options.title_col
    texts = (options.query_col, options.document_col)
    prompts = [] if options.prompt_col is None else [options.prompt_col]
    titles = [title] if title not in (NO_TITLE, "") else []
    return (*texts, *id_columns(options), *titles, *prompts, *first_stage_columns(options))


def first_stage_columns(options: JobOptions) -> tuple[str, ...]:
    """Return the name of the first stage's score that a job fuses, whether it is there or not."""
    return () if options.fuse is None else (options.fuse_col or SCORE,)


def id_columns(options: JobOptions) -> tuple[str, str]:
    """Return the names of the ids, whether they are there or not."""
    return options.query_id_col or _QUERY_ID, options.doc_id_col or _DOC_ID


def check_names(uri: str, schema: pa.Schema) -> None:
    """Check that no column has the name of one that preparing adds.

    Raises:
        InputError: a column has; `uri` is the file that the error names.
    """
    reserved = [name for name in STATUS_COLUMNS if name in schema.names]
    if reserved:
        raise InputError(f"{uri}: column '{reserved[0]}' needs another name")


def resolve_columns(
    spec: JobOptions,
    schema: pa.Schema,
    candidates: tuple[str, ...] | None = None,
    title: str | None = None,
) -> Columns:
    """Return the role of each column; ids and titles are also found by their usual names.

    Args:
        spec: names the columns.
        schema: the input's columns.
        candidates: of lists, the columns that describe a candidate, to be lists in the output.
        title: of lists, the column with the candidates' titles; for pairs it is found here.

    Raises:
        InputError: a column is missing, there twice, of the wrong type, or would be written twice.
    """
    for column in schema.names:
        _field(column, schema)  # also those left out, since a rejected row has them
    flags = [(spec.query_col, "--query-col"), (spec.document_col, "--document-col")]
    if spec.prompt_col is not None:
        flags.append((spec.prompt_col, "--prompt-col"))
    for column, flag in flags:
        kind = _field(column, schema, flag).type
        if not is_text(kind):
            columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
            raise InputError(
                f"column '{column}' is {kind}, not text; the columns there are: {columns}; "
                f"{flag} names another"
            )
    query_id = _id_column(spec.query_id_col, _QUERY_ID, schema)
    doc_id = _id_column(spec.doc_id_col, _DOC_ID, schema)
    texts = (spec.query_col, spec.document_col)
    if spec.layout == "pairs":
        title = find_title(spec.title_col, schema, (*texts, query_id), "the pairs")
    _check_first_stage(spec, schema)
    own = [name for name in schema.names if name not in STATUS_COLUMNS]
    if spec.keep_cols is not None:
        kept = list(spec.keep_cols)
    elif query_id and doc_id:
        kept = [name for name in own if name not in texts]
    else:
        kept = own
    for column in kept:
        _field(column, schema, "--keep-cols")
    if spec.trec_run and not {query_id, doc_id} <= set(kept):
        raise InputError("--trec-run needs a query id and a document id, both kept")
    for name in (query_id, doc_id):
        if spec.trec_run and pa.types.is_timestamp(_field(str(name), schema).type):
            raise InputError(f"--trec-run: column '{name}' is a timestamp, which is not one word")
    if spec.layout == "lists" and not spec.explode:
        if spec.trec_run:
            raise InputError("--trec-run needs --explode, a row for each candidate")
        for name in kept:
            if folded(name) == CANDIDATES_COLUMN and name != spec.document_col:
                raise _written_twice(name)
    return Columns(
        query=spec.query_col,
        document=spec.document_col,
        query_id=query_id,
        doc_id=doc_id,
        kept=_names_in_parts(kept, spec.result_columns),
        candidates=candidates,
        title=title,
        prompt=spec.prompt_col,
    )


def _check_first_stage(spec: JobOptions, schema: pa.Schema) -> None:
    """Check that the scores to fuse are there, and numbers.

    Raises:
        InputError: they are not.
    """
    if spec.fuse_col is not None:
        kind = _field(spec.fuse_col, schema, "--fuse-col").type
        if not is_number(kind):
            raise InputError(f"--fuse-col: column '{spec.fuse_col}' is {kind}, not a number")
        if spec.fuse_col == "rank" and pa.types.is_integer(kind):
            raise InputError(
                "--fuse-col rank: of ranks, the lowest is best, and of scores the highest; leave "
                "it out to fuse by the order of the rows, or rename a column of scores"
            )
    elif spec.fuse == "weighted" and first_column(schema) is None:
        columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise InputError(
            "--fuse weighted needs the first stage's scores: name their column by --fuse-col, or "
            f"give --fuse rrf to fuse by ranks; the columns there are: {columns}"
        )
    elif spec.fuse == "rrf" and SCORE in schema.names and first_column(schema) is None:
        raise InputError(
            f"--fuse rrf: column '{SCORE}' is {schema.field(SCORE).type}, not a number; write it "
            "as numbers, name another by --fuse-col, or rename it to fuse by the order of the rows"
        )


def _field(column: str, schema: pa.Schema, flag: str | None = None) -> pa.Field:
    """Return a column; raise InputError, with advice to use `flag`, if not there exactly once."""
    if schema.names.count(column) != 1:
        there = ", ".join(schema.names) or "none"
        what = "twice" if column in schema.names else "missing"
        hint = f"; {flag} names another" if flag else ""
        raise InputError(f"column '{column}' is {what}; the columns there are: {there}{hint}")
    return schema.field(column)


def _id_column(wanted: str | None, usual: str, schema: pa.Schema) -> str | None:
    if wanted is None and usual not in schema.names:
        return None
    name = wanted or usual
    kind = _field(name, schema, f"--{usual.replace('_', '-')}-col").type
    key_type(kind, name)  # raises InputError for a type that cannot be an id
    return name


def _names_in_parts(kept: Sequence[str], result_columns: Sequence[str]) -> dict[str, str]:
    """Return input column to output column; one named like a result column gets `input_` in front.

    Names are compared as `folded` returns them, since most readers of parts ignore case.
    """
    results = set(map(folded, result_columns))
    names = {column: f"input_{column}" if folded(column) in results else column for column in kept}
    if len(names) < len(kept):
        raise _written_twice(next(c for c in kept if list(kept).count(c) > 1))
    seen: dict[str, str] = {}
    for name in (*result_columns, *names.values()):
        same = seen.setdefault(folded(name), name)
        if same == name and list(names.values()).count(name) > 1:
            raise _written_twice(name)
        if same != name:
            raise InputError(
                f"columns {same!r} and {name!r} would be written, which readers such as DuckDB and "
                "Spark take for one; leave one out with --keep-cols, or rename it"
            )
    return names


def _written_twice(column: str) -> InputError:
    return InputError(f"column '{column}' would be written twice; choose with --keep-cols")
