"""Lists of candidates as pairs: a row for each candidate, in order, beside its query's columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from producer.formats.rows import Rows, schema_with_status
from producer.tables.text_columns import find_title
from rankmill.contract.job import REFUSAL_COLUMN, STATUS_COLUMNS, InputFile, JobSpec
from rankmill.errors import InputError
from rankmill.tables.row_bytes import row_bytes, stops

_QUERY_ID, _DOC_ID = "query_id", "doc_id"
USUAL_LISTS = ("candidates", "documents", "docs")
_IDS = ("id", "doc_id", "_id", "docid")
_TEXTS = ("text", "document", "contents")


class ExplodedRows:
    """Rows of lists as rows of pairs.

    A query that nothing names gets the number of its row as `query_id`, so that two queries of
    equal text stay two. A candidate's further fields become columns.

    Attributes:
        title_column: the one with the candidates' titles, if they have any.
    """

    def __init__(self, spec: JobSpec, rows: Rows) -> None:
        """
        Raises:
            InputError: no list of candidates, or columns that would be there twice.
        """
        self._rows = rows
        self._list_column = _list_column(spec, rows)
        self._own = [name for name in rows.schema.names if name != self._list_column]
        self._counts_queries = spec.query_id_col is None and _QUERY_ID not in self._own
        self._fields, self.title_column = _candidate_fields(
            spec, rows, self._list_column, self._own
        )
        counted = [pa.field(_QUERY_ID, pa.int64())] if self._counts_queries else []
        element = rows.schema.field(self._list_column).type.value_type
        self.schema = pa.schema(
            [
                *counted,
                *(rows.schema.field(name) for name in self._own),
                *(
                    pa.field(name, element if field is None else element.field(field).type)
                    for name, field in self._fields.items()
                ),
            ]
        )

    @property
    def candidate_columns(self) -> tuple[str, ...]:
        """Those that tell of a candidate and not of its query."""
        return tuple(self._fields)

    @property
    def files(self) -> tuple[InputFile, ...]:
        return self._rows.files

    def tables(self, names: Sequence[str]) -> Iterator[pa.Table]:
        own = [name for name in self._own if name in names]
        schema = schema_with_status(pa.schema([self.schema.field(name) for name in names]))
        row = 0
        for table in self._rows.tables([*own, self._list_column]):
            numbers = pa.array(np.arange(row, row + table.num_rows))
            row += table.num_rows
            if self._counts_queries:
                table = table.append_column(_QUERY_ID, numbers)
            for exploded in self._explode(table):
                yield exploded.select(schema.names).cast(schema)

    def _explode(self, table: pa.Table) -> Iterator[pa.Table]:
        """A query's columns come again for each candidate, so that little can become much."""
        parents, items, source, have_none = _flatten(table[self._list_column])
        own = table.drop_columns([self._list_column])
        item_sizes = np.append(row_bytes(pa.table({"": items})), 0)
        sizes = row_bytes(own)[parents.to_numpy()] + item_sizes[source]
        start = 0
        for stop in stops(sizes, max(1, len(sizes))):
            parent, at = parents[start:stop], source[start:stop]
            candidate = items.take(pa.array(at, mask=at < 0))
            refusal = _refusals(own[REFUSAL_COLUMN].take(parent), candidate, have_none[start:stop])
            exploded = own.take(parent)
            for name, field in self._fields.items():
                values = candidate if field is None else pc.struct_field(candidate, [field])
                exploded = exploded.append_column(name, values)
            at = exploded.column_names.index(REFUSAL_COLUMN)
            yield exploded.set_column(at, STATUS_COLUMNS[0], refusal)
            start = stop


def _is_list(kind: pa.DataType) -> bool:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def list_columns(spec: JobSpec, schema: pa.Schema) -> list[str]:
    """The columns that may be the candidates: the one asked for, or else those called as usual."""
    names = (spec.document_col,) if spec.document_col in schema.names else USUAL_LISTS
    return [name for name in names if name in schema.names and _is_list(schema.field(name).type)]


def _list_column(spec: JobSpec, rows: Rows) -> str:
    found = list_columns(spec, rows.schema)
    if len(found) == 1:
        return found[0]
    uri = rows.files[0].uri
    if found:
        raise InputError(
            f"{uri}: '{found[0]}' and '{found[1]}' are lists; choose by --document-col"
        )
    columns = ", ".join(f"{field.name} ({field.type})" for field in rows.schema) or "none"
    raise InputError(
        f"{uri}: column '{spec.document_col}' is no list of candidates; the columns there are: "
        f"{columns}"
    )


def _candidate_fields(
    spec: JobSpec, rows: Rows, list_column: str, own: list[str]
) -> tuple[dict[str, str | None], str | None]:
    """Output column to the candidate's field that it comes from; None is the candidate itself.

    Returns:
        The columns, and the one of the title.

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


def _flatten(lists: pa.ChunkedArray) -> tuple[pa.Array, pa.Array, np.ndarray, np.ndarray]:
    """Each candidate with its row's number, and a row that has none once.

    Returns:
        parent: int64 (n,)
        items: all candidates.
        source: int64 (n,), which of them, or -1 for none.
        has_none: bool (n,), whether the row has no candidates.
    """
    kind = pa.large_list(lists.type.value_type)
    lists = lists.cast(kind)
    array = lists.chunk(0) if lists.num_chunks == 1 else lists.combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    counts = np.maximum(lengths, 1)
    parent = np.repeat(np.arange(len(lengths)), counts)
    nth = np.arange(len(parent)) - np.repeat(np.cumsum(counts) - counts, counts)
    source = np.repeat(np.cumsum(lengths) - lengths, counts) + nth
    has_none = np.repeat(lengths == 0, counts)
    source[has_none] = -1
    return pa.array(parent), pc.list_flatten(array), source, has_none


def _refusals(
    earlier: pa.ChunkedArray, candidate: pa.Array, has_none: np.ndarray
) -> pa.ChunkedArray:
    reasons = pc.case_when(
        pc.make_struct(pa.array(has_none), candidate.is_null()),
        pa.scalar("no candidates"),
        pa.scalar("candidate is null"),
    )
    return pc.coalesce(earlier, reasons)
