"""Bring nested rows of the field into the form of lists: a query, and a list of candidates.

rank_llm nests the query as `{"text", "qid"}` and each document as `doc` inside its candidate.
Tevatron has `positive_passages` and `negative_passages`, and triples have `positive` and
`negative`; of both, all become candidates with a `label` of 1 or 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from producer.formats.rows import Rows, schema_with_status
from producer.tables.column_kinds import is_list, is_text
from producer.tables.unify import common_type
from rankmill.errors import InputError
from rankmill.tables.casts import exact_cast

CANDIDATES = "candidates"
LABEL = "label"
# Columns with the relevant documents of a query, and with others.
_LABELLED = (("positive_passages", "negative_passages"), ("positive", "negative"))
_IDS_OF_QUERY = ("qid", "query_id", "id")
_NESTED_DOCUMENT = "doc"


def as_lists(rows: Rows, query: str, query_id: str, document: str) -> Rows:
    """Return rows of lists without nesting; rows that have none stay as they are.

    Args:
        rows: the rows of an input.
        query: the column with the query's text.
        query_id: the name for the column with the query's id.
        document: the column that is named as the candidates', if it is there.

    Raises:
        InputError: relevant documents and others have different types.
    """
    rows = _with_plain_query(rows, query, query_id)
    if document not in rows.schema.names:
        rows = _with_labels(rows)
    return _with_plain_documents(rows)


def pairs_of_triples(rows: Rows, doc_id: str) -> Rows:
    """Return rows with the ids of a relevant and another document as two rows, with their labels.

    Rows without such columns, or with a document id of their own, stay as they are.
    """
    names = labelled_columns(rows.schema)
    if names is None or doc_id in rows.schema.names:
        return rows
    kinds = [rows.schema.field(name).type for name in names]
    if kinds[0] != kinds[1] or not is_text(kinds[0]):
        return rows
    others = [field for field in rows.schema if field.name not in names]
    schema = pa.schema([*others, pa.field(doc_id, kinds[0]), pa.field(LABEL, pa.int32())])

    def tables(wanted: Sequence[str]) -> Iterator[pa.Table]:
        plain = [name for name in wanted if name not in (doc_id, LABEL)]
        for table in rows.tables([*plain, *names]):
            n_rows = table.num_rows
            twice = table.take(np.repeat(np.arange(n_rows), 2))
            both = pa.chunked_array([*table[names[0]].chunks, *table[names[1]].chunks], kinds[0])
            ids = both.take(np.arange(2 * n_rows).reshape(2, n_rows).T.ravel())
            added = {doc_id: ids, LABEL: pa.array(np.tile([1, 0], n_rows).astype(np.int32))}
            chosen = [added[name] if name in added else twice[name] for name in wanted]
            yield _with_status_of(twice, wanted, chosen)

    return replace(rows, schema=schema, tables=tables)


def labelled_columns(schema: pa.Schema) -> tuple[str, str] | None:
    """Return the columns with relevant documents and with others, if both are there."""
    for names in _LABELLED:
        kinds = [schema.field(name).type for name in names if schema.names.count(name) == 1]
        if len(kinds) == 2 and all(is_list(kind) or is_text(kind) for kind in kinds):
            return names
    return None


def nested_query(schema: pa.Schema, query: str) -> pa.StructType | None:
    """Return the type of a query that is an object with a text; None for any other."""
    kind = schema.field(query).type if schema.names.count(query) == 1 else None
    is_nested = kind is not None and pa.types.is_struct(kind) and kind.get_field_index("text") >= 0
    return kind if is_nested else None


def _with_plain_query(rows: Rows, query: str, query_id: str) -> Rows:
    """Divide a query that is an object into its text and its id."""
    kind = nested_query(rows.schema, query)
    if kind is None:
        return rows
    ids = [name for name in _IDS_OF_QUERY if kind.get_field_index(name) >= 0]
    fields = [pa.field(query, kind.field("text").type)]
    if ids and query_id not in rows.schema.names:
        fields.append(pa.field(query_id, kind.field(ids[0]).type))
    sources = ["text", *ids[:1]][: len(fields)]
    others = [field for field in rows.schema if field.name != query]
    schema = pa.schema([*fields, *others])

    def tables(names: Sequence[str]) -> Iterator[pa.Table]:
        plain = [name for name in names if name not in schema.names[: len(fields)]]
        for table in rows.tables([query, *plain]):
            for field, source in zip(fields, sources, strict=True):
                values = pc.struct_field(table[query], source)
                table = table.append_column(f"\0{field.name}", values)
            chosen = [table[name if name in plain else f"\0{name}"] for name in names]
            yield _with_status_of(table, names, chosen)

    return replace(rows, schema=schema, tables=tables)


def _with_labels(rows: Rows) -> Rows:
    """Bring relevant documents and others together as one list, with their labels."""
    names = labelled_columns(rows.schema)
    if names is None or CANDIDATES in rows.schema.names:
        return rows
    kinds = [_item_type(rows.schema.field(name).type) for name in names]
    item = _common_item(*kinds)
    if item is None:
        raise InputError(
            f"{rows.files[0].uri}: '{names[0]}' is {kinds[0]}, '{names[1]}' is {kinds[1]}; "
            "write both with one type"
        )
    own = list(item) if pa.types.is_struct(item) else [pa.field("text", item)]
    entry = pa.struct([*own, pa.field(LABEL, pa.int32())])
    others = [field for field in rows.schema if field.name not in names]
    schema = pa.schema([*others, pa.field(CANDIDATES, pa.large_list(entry))])

    def tables(wanted: Sequence[str]) -> Iterator[pa.Table]:
        plain = [name for name in wanted if name != CANDIDATES]
        for table in rows.tables([*plain, *names] if CANDIDATES in wanted else plain):
            chosen = [
                _joined(table, names, item, entry) if name == CANDIDATES else table[name]
                for name in wanted
            ]
            yield _with_status_of(table, wanted, chosen)

    return replace(rows, schema=schema, tables=tables)


def _joined(
    table: pa.Table, names: tuple[str, str], item: pa.DataType, entry: pa.DataType
) -> pa.Array:
    """Return the list of each row: its relevant documents first, with the label 1."""
    of_kind = [_as_lists(table[name], item) for name in names]
    n_of_kind = [pc.fill_null(pc.list_value_length(lists), 0).to_numpy() for lists in of_kind]
    items = pa.concat_arrays([pc.list_flatten(lists) for lists in of_kind])
    n_all = n_of_kind[0] + n_of_kind[1]
    offsets = np.append(0, np.cumsum(n_all))
    # Within the joined items, those of a row's first kind come before those of its second.
    order = np.empty(len(items), np.int64)
    begins = offsets[:-1]
    start = 0
    for counts, first in zip(n_of_kind, (begins, begins + n_of_kind[0]), strict=True):
        nth = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        order[np.repeat(first, counts) + nth] = start + np.arange(counts.sum())
        start += counts.sum()
    labels = pa.array((order < n_of_kind[0].sum()).astype(np.int32))
    items = items.take(pa.array(order))
    values = [pc.struct_field(items, [n]) for n in range(item.num_fields)] or [items]
    if pa.types.is_struct(item) and items.null_count:
        labels = pc.if_else(items.is_valid(), labels, None)
    entries = pa.StructArray.from_arrays(
        [*values, labels], fields=list(entry), mask=items.is_null()
    )
    return pa.LargeListArray.from_arrays(pa.array(offsets), entries)


def _common_item(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return the type of both kinds of documents; an object may lack fields of the other's.

    JSONL in which one kind has no document anywhere gives it as text.
    """
    if not pa.types.is_struct(one) or not pa.types.is_struct(other):
        both = (one, other)
        struct = next((kind for kind in both if pa.types.is_struct(kind)), None)
        return struct if struct is not None and any(map(is_text, both)) else common_type(*both)
    kinds: dict[str, pa.DataType | None] = {field.name: field.type for field in one}
    for field in other:
        kinds[field.name] = common_type(kinds.get(field.name) or field.type, field.type)
    return None if None in kinds.values() else pa.struct(list(kinds.items()))


def _as_lists(column: pa.ChunkedArray, item: pa.DataType) -> pa.Array:
    """Return a column of lists as it is, one of single values as lists of one.

    Raises:
        InputError: a text is there in place of an object.
    """
    own = _item_type(column.type)
    if pa.types.is_struct(item) and own != item:
        if not is_list(column.type) and column.null_count == len(column):
            column = pa.chunked_array([pa.nulls(len(column), pa.large_list(own))])
        if not is_list(column.type):
            column = pa.chunked_array([_lists_of_one(column.combine_chunks())])
        lists = column.cast(pa.large_list(own)).combine_chunks()
        items = pc.list_flatten(lists)
        if not pa.types.is_struct(own) and len(items):
            raise InputError(f"a document is the text {items[0].as_py()!r:.40}, others are objects")
        values = [
            pc.struct_field(items, field.name).cast(field.type)
            if pa.types.is_struct(own) and own.get_field_index(field.name) >= 0
            else pa.nulls(len(items), field.type)
            for field in item
        ]
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
        entries = pa.StructArray.from_arrays(values, fields=list(item), mask=items.is_null())
        return pa.LargeListArray.from_arrays(pa.array(np.append(0, np.cumsum(lengths))), entries)
    if is_list(column.type):
        return exact_cast(column, pa.large_list(item)).combine_chunks()
    return _lists_of_one(exact_cast(column, item).combine_chunks())


def _lists_of_one(values: pa.Array) -> pa.Array:
    return pa.LargeListArray.from_arrays(pa.array(np.arange(len(values) + 1)), values)


def _item_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if is_list(kind) else kind


def _with_plain_documents(rows: Rows) -> Rows:
    """Put the fields of a candidate's `doc` next to those of the candidate."""
    nested = {
        field.name: plain
        for field in rows.schema
        if is_list(field.type) and (plain := _plain_entry(field.type.value_type)) is not None
    }
    if not nested:
        return rows
    schema = pa.schema(
        pa.field(field.name, pa.large_list(nested[field.name])) if field.name in nested else field
        for field in rows.schema
    )

    def tables(names: Sequence[str]) -> Iterator[pa.Table]:
        for table in rows.tables(names):
            chosen = [
                _with_plain_entries(table[name], nested[name]) if name in nested else table[name]
                for name in names
            ]
            yield _with_status_of(table, names, chosen)

    return replace(rows, schema=schema, tables=tables)


def _plain_entry(kind: pa.DataType) -> pa.DataType | None:
    """Return the candidate's type without nesting; None if it has none."""
    if not pa.types.is_struct(kind) or kind.get_field_index(_NESTED_DOCUMENT) < 0:
        return None
    document = kind.field(_NESTED_DOCUMENT).type
    if not pa.types.is_struct(document):
        return None
    outer = [field for field in kind if field.name != _NESTED_DOCUMENT]
    taken = {field.name for field in outer}
    return pa.struct([*outer, *(field for field in document if field.name not in taken)])


def _with_plain_entries(column: pa.ChunkedArray, entry: pa.DataType) -> pa.Array:
    kind = column.type.value_type
    lists = column.cast(pa.large_list(kind)).combine_chunks()
    items = pc.list_flatten(lists)
    document = pc.struct_field(items, _NESTED_DOCUMENT)
    values = [
        pc.struct_field(items if kind.get_field_index(field.name) >= 0 else document, field.name)
        for field in entry
    ]
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    offsets = pa.array(np.append(0, np.cumsum(lengths)))
    entries = pa.StructArray.from_arrays(values, fields=list(entry), mask=items.is_null())
    return pa.LargeListArray.from_arrays(offsets, entries)


def _with_status_of(table: pa.Table, names: Sequence[str], columns: Sequence[pa.Array]) -> pa.Table:
    """Return these columns, with the status columns of a table after them."""
    status = schema_with_status(pa.schema([])).names
    arrays = [*columns, *(table[name] for name in status)]
    return pa.Table.from_arrays(arrays, names=[*names, *status])
