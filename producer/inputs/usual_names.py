"""Find the columns of texts and ids by the names that the field uses, where no flag names them.

A name of the first place wins without a word: those are the defaults of the flags. Any other is
reported. Where several others are there, a text is refused and an id is not taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from producer.tables.column_kinds import is_text
from rankmill.contract.job import JobOptions, JobSpec
from rankmill.errors import InputError

QUERY = ("query", "query_text", "question", "search_query")
DOCUMENT = (
    *("document", "passage", "text", "content", "contents", "body"),
    *("document_text", "passage_text", "doc_text"),
)
QUERY_ID = ("query_id", "qid", "query-id", "queryid", "topic_id")
DOC_ID = (
    *("doc_id", "docid", "docno", "pid", "document_id", "passage_id", "corpus-id", "corpus_id"),
)


@dataclass(frozen=True)
class Named:
    """A job whose columns are named.

    Attributes:
        spec: the job, with the names that were found.
        notes: what was found and how to choose otherwise, a line each.
    """

    spec: JobSpec
    notes: tuple[str, ...] = ()


def with_usual_names(spec: JobSpec, uri: str, schema: pa.Schema) -> Named:
    """Name the columns of a job's input that no flag names.

    Args:
        spec: the job.
        uri: the file that an error names.
        schema: the columns of the input.

    Raises:
        InputError: several columns may be the query or the document.
    """
    found: dict[str, str] = {}
    notes: list[str] = []
    taken = {spec.query_id_col, spec.doc_id_col, spec.title_col, spec.prompt_col}
    kinds = {field.name: field.type for field in schema}
    texts = {name for name, kind in kinds.items() if is_text(kind)}
    for field, names in _texts_of(spec):
        if getattr(spec, field) != names[0] or names[0] in schema.names:
            continue
        there = [name for name in names if name in texts and name not in taken]
        if len(there) > 1:
            flags = " or ".join(f"{_flag(field)} {name}" for name in there)
            what = "query" if field == "query_col" else "document"
            raise InputError(f"{uri}: several columns may be the {what}: give {flags}")
        if there:
            found[field] = there[0]
    taken |= {found.get(field, getattr(spec, field)) for field in ("query_col", "document_col")}
    for field, names in (("query_id_col", QUERY_ID), ("doc_id_col", DOC_ID)):
        if getattr(spec, field) is not None or names[0] in schema.names:
            continue
        there = [
            name
            for name in names
            if name in kinds and name not in taken and _may_be_id(kinds[name])
        ]
        if len(there) > 1:
            flags = " or ".join(f"{_flag(field)} {name}" for name in there)
            notes.append(f"no {_WHAT[field]}: several columns may have it; give {flags}")
        elif there:
            found[field] = there[0]
    if found:
        flags = " ".join(f"{_flag(field)} {name}" for field, name in found.items())
        notes.insert(0, f"columns by their usual names: {flags}")
    return Named(spec.model_copy(update=found), tuple(notes))


_WHAT = {"query_id_col": "query id", "doc_id_col": "document id"}


def known_names(options: JobOptions) -> tuple[set[str], set[str], set[str], set[str]]:
    """Return the names that a header may have for query, document, query id and document id."""
    return (
        {*QUERY, options.query_col},
        {*DOCUMENT, options.document_col},
        {*QUERY_ID, *_given(options.query_id_col)},
        {*DOC_ID, *_given(options.doc_id_col)},
    )


def _texts_of(spec: JobOptions) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the fields that name a text in the input; a list of candidates is found by itself."""
    if spec.layout == "run":
        return ()
    query = ("query_col", QUERY)
    return (query,) if spec.layout == "lists" else (query, ("document_col", DOCUMENT))


def _flag(field: str) -> str:
    return "--" + field.replace("_", "-")


def _given(name: str | None) -> Iterable[str]:
    return () if name is None else (name,)


def _may_be_id(kind: pa.DataType) -> bool:
    return is_text(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)
