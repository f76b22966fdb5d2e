"""Whether an input is of the layout that was named, and of which it looks to be if not."""

from __future__ import annotations

import pyarrow as pa

from producer.formats.lists import list_columns
from producer.tables.text_columns import is_text
from rankmill.contract.job import JobSpec, Layout
from rankmill.errors import InputError

_ADVICE: dict[Layout, str] = {
    "pairs": "give --layout pairs",
    "lists": "give --layout lists",
    "run": "give --layout run with --queries and --corpus",
}


def check_layout(spec: JobSpec, uri: str, schema: pa.Schema) -> None:
    """
    Raises:
        InputError: the columns are plainly those of another layout.
    """
    found = _layout_of(spec, schema)
    columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
    ids = {spec.query_id_col or "query_id", spec.doc_id_col or "doc_id"}
    texts = [field.name for field in schema if is_text(field.type) and field.name not in ids]
    if found == "run" and spec.layout == "pairs" and len(texts) > 1:  # of a run, a tag at most
        raise InputError(
            f"{uri}: no text columns '{spec.query_col}' and '{spec.document_col}'; the columns "
            f"there are: {columns}; name the texts with --query-col and --document-col, or "
            f"{_ADVICE['run']} where they lie in other files"
        )
    if found is not None and found != spec.layout:
        raise wrong_layout(uri, found, columns)


def wrong_layout(uri: str, found: Layout, why: str) -> InputError:
    return InputError(f"{uri} looks like {found}, not as --layout says: {why}; {_ADVICE[found]}")


def _layout_of(spec: JobSpec, schema: pa.Schema) -> Layout | None:
    texts = {field.name for field in schema if is_text(field.type)}
    has_query = spec.query_col in texts
    if has_query and spec.document_col in texts:
        return "pairs"
    if has_query and len(list_columns(spec, schema)) == 1:
        return "lists"
    ids = {spec.query_id_col or "query_id", spec.doc_id_col or "doc_id"}
    if ids <= set(schema.names) and not texts & {spec.query_col, spec.document_col}:
        return "run"
    return None
