"""Check that an input has the layout that was named, and advise which one it seems to have."""

from __future__ import annotations

import pyarrow as pa

from producer.formats.lists import list_columns
from producer.formats.nested import labelled_columns, nested_query
from producer.tables.column_kinds import is_text
from rankmill.contract.job import JobSpec, Layout
from rankmill.errors import InputError

_ADVICE: dict[Layout, str] = {
    "pairs": "give --layout pairs",
    "lists": "give --layout lists",
    "run": "give --layout run with --queries and --corpus",
}


def check_layout(spec: JobSpec, uri: str, schema: pa.Schema) -> None:
    """Check that the columns are not plainly those of another layout.

    Raises:
        InputError: they are; `uri` is the file that the error names.
    """
    has_text = {field.name for field in schema if is_text(field.type)}
    ids = {spec.query_id_col or "query_id", spec.doc_id_col or "doc_id"}
    has_query = spec.query_col in has_text
    seen: Layout | None = None
    if has_query and spec.document_col in has_text:
        seen = "pairs"
    elif _has_lists(spec, schema, has_query=has_query):
        seen = "lists"
    elif ids <= set(schema.names) and not has_text & {spec.query_col, spec.document_col}:
        seen = "run"
    columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
    # A run has one text besides its ids at most, its tag.
    if seen == "run" and spec.layout == "pairs" and len(has_text - ids) > 1:
        raise InputError(
            f"{uri}: no text columns '{spec.query_col}' and '{spec.document_col}'; the columns "
            f"there are: {columns}; name the texts with --query-col and --document-col, or "
            f"{_ADVICE['run']} where they lie in other files"
        )
    if seen is not None and seen != spec.layout:
        raise wrong_layout(uri, seen, columns)


def _has_lists(spec: JobSpec, schema: pa.Schema, *, has_query: bool) -> bool:
    """Return whether the columns are a query, perhaps nested, and lists of its candidates."""
    if nested_query(schema, spec.query_col) is not None:
        return bool(list_columns(spec, schema))
    one_list = len(list_columns(spec, schema)) == 1
    return has_query and (one_list or labelled_columns(schema) is not None)


def wrong_layout(uri: str, seen: Layout, why: str) -> InputError:
    """Return the error for an input that seems to have another layout than --layout names."""
    return InputError(f"{uri} looks like {seen}, not as --layout says: {why}; {_ADVICE[seen]}")
