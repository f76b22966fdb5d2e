"""Explode lists of candidates into pairs: one row per candidate, with its query's columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from producer.formats.rows import Rows, schema_with_status
from producer.tables.column_kinds import find_title, is_list
from rankmill.contract.job import JobSpec
from rankmill.contract.plan import REFUSAL_COLUMN
from rankmill.errors import InputError
from rankmill.tables.row_bytes import row_bytes, stops

_QUERY_ID, _DOC_ID = "query_id", "doc_id"
USUAL_LISTS = ("candidates", "documents", "docs")
_IDS = ("id", "doc_id", "_id", "docid", "docno", "pid", "document_id", "passage_id")
_TEXTS = ("text", "document", "contents", "passage", "content", "segment", "body")


def list_columns(spec: JobSpec, schema: pa.Schema) -> list[str]:
    """Return the columns that may be the candidates: --document-col if present, or usual names."""
    names = (spec.document_col,) if spec.document_col in schema.names else USUAL_LISTS
    return [name for name in names if name in schema.names and is_list(schema.field(name).type)]


def exploded_rows(spec: JobSpec, rows: Rows) -> Rows:
    """Return rows of lists as rows of pairs, with each candidate's fields as columns.

    A query without an id gets its row's number as `query_id`, so that two queries of equal text
    stay two.

    Raises:
        InputError: there is no list of candidates, or a column would be there twice.
    """
    list_column = _list_column(spec, rows)
    own = [name for name in rows.schema.names if name != list_column]
    counts_queries = spec.query_id_col is None and _QUERY_ID not in own
    fields, title = _candidate_fields(spec, rows, list_column, own)
    element = rows.schema.field(list_column).type.value_type
    kinds = {name: element if at is None else element.field(at).type for name, at in fields.items()}
    schema = pa.schema(
        [
            *([pa.field(_QUERY_ID, pa.int64())] if counts_queries else []),
            *(rows.schema.field(name) for name in own),
            *(pa.field(name, kind) for name, kind in kinds.items()),
        ]
    )

    def tables(names: Sequence[str]) -> Iterator[pa.Table]:
        wanted = schema_with_status(pa.schema([schema.field(name) for name in names]))
        row = 0
        for table in rows.tables([*(name for name in own if name in names), list_column]):
            numbers = pa.array(np.arange(row, row + table.num_rows))
            row += table.num_rows
            if counts_queries:
                table = table.append_column(_QUERY_ID, numbers)
            for exploded in _exploded(table, list_column, fields):
                yield exploded.select(wanted.names).cast(wanted)

    return Rows(rows.files, schema, tables, tuple(fields), title)


def _list_column(spec: JobSpec, rows: Rows) -> str:
    names = list_columns(spec, rows.schema)
    if len(names) == 1:
        return names[0]
    uri = rows.files[0].uri
    if names:
        raise InputError(
            f"{uri}: '{names[0]}' and '{names[1]}' are lists; choose by --document-col"
        )
    columns = ", ".join(f"{field.name} ({field.type})" for field in rows.schema) or "none"
    raise InputError(
        f"{uri}: column '{spec.document_col}' is not a list of candidates; the columns there are: "
        f"{columns}"
    )


def _candidate_fields(
    spec: JobSpec, rows: Rows, list_column: str, own: list[str]
) -> tuple[dict[str, str | None], str | None]:
    """Return output columns with the candidate's fields that they come from, and the title's.

    The field is None where the candidate itself is the text.

    Raises:
        InputError: no field has the text, or a column would be there twice.
    """
    uri = rows.files[0].uri
    element = rows.schema.field(list_column).type.value_type
    is_struct = pa.types.is_struct(element)
    fields = [field.name for field in element] if is_struct else []
    text = next((name for name in _TEXTS if name in fields), None)
    if fields and text is None:
        raise InputError(
            f"{uri}: the candidates in '{list_column}' have no field "
            f"{' or '.join(map(repr, _TEXTS))}; they have: {', '.join(fields)}"
        )
    doc_id = next((name for name in _IDS if name in fields), None)
    columns = [(spec.document_col, text)]
    if doc_id is not None:
        columns.append((spec.doc_id_col or _DOC_ID, doc_id))
    taken = {*own, _QUERY_ID, *(name for name, _ in columns)}
    for name in fields:
        if name not in (text, doc_id):
            columns.append((f"candidate_{name}" if name in taken else name, name))
    names = [*own, *(name for name, _ in columns)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{uri}: column '{twice}' would be there twice, once from '{list_column}'")
    where = f"{uri}: a candidate in '{list_column}'"
    title = find_title(spec.title_col, element if is_struct else (), (text,), where)
    return dict(columns), next((name for name, field in columns if title and field == title), None)


def _exploded(
    table: pa.Table, list_column: str, fields: Mapping[str, str | None]
) -> Iterator[pa.Table]:
    """Yield a row per candidate, in small tables: a query's columns are repeated for each."""
    parents, items, source = _flattened(table[list_column])
    own = table.drop_columns([list_column])
    item_sizes = np.append(row_bytes(pa.table({"": items})), 0)
    sizes = row_bytes(own)[parents.to_numpy()] + item_sizes[source]
    start = 0
    for stop in stops(sizes, max(1, len(sizes))):
        parent, at = parents[start:stop], source[start:stop]
        candidate = items.take(pa.array(at, mask=at < 0))
        exploded = own.take(parent)
        for name, field in fields.items():
            values = candidate if field is None else pc.struct_field(candidate, [field])
            exploded = exploded.append_column(name, values)
        reasons = pc.case_when(
            pc.make_struct(pa.array(at < 0), candidate.is_null()),
            pa.scalar("no candidates"),
            pa.scalar("candidate is null"),
        )
        refusal = pc.coalesce(exploded[REFUSAL_COLUMN], reasons)
        column = exploded.column_names.index(REFUSAL_COLUMN)
        yield exploded.set_column(column, REFUSAL_COLUMN, refusal)
        start = stop


def _flattened(lists: pa.ChunkedArray) -> tuple[pa.Array, pa.Array, np.ndarray]:
    """Return each candidate with its row, and a row without candidates once.

    Returns:
        parent: int64 (n,), the number of the row.
        items: all candidates.
        source: int64 (n,), the number of the candidate in `items`, or -1 for none.
    """
    lists = lists.cast(pa.large_list(lists.type.value_type))
    array = lists.chunk(0) if lists.num_chunks == 1 else lists.combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    counts = np.maximum(lengths, 1)
    parent = np.repeat(np.arange(len(lengths)), counts)
    nth = np.arange(len(parent)) - np.repeat(np.cumsum(counts) - counts, counts)
    source = np.repeat(np.cumsum(lengths) - lengths, counts) + nth
    source[np.repeat(lengths == 0, counts)] = -1
    return pa.array(parent), pc.list_flatten(array), source
