"""A schema as a job sees it: names without regard to case, plain types, ids of one type."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection

import pyarrow as pa

_PLAIN = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}


def folded(name: str) -> str:
    """Return a form that is equal for column names that a reader may confuse.

    DuckDB and Spark ignore case.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).strip()


def id_type(kind: pa.DataType) -> pa.DataType:
    """Return the type in which a job holds ids of this type: integers for floats.

    pandas makes floats of integers among nulls; `7.0` would match no judgment for `7`.
    """
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.int64() if pa.types.is_floating(value) else kind


def with_id_types(schema: pa.Schema, names: Collection[str | None]) -> pa.Schema:
    """Return the schema with the named ids in their types; values are checked when read."""
    return pa.schema(
        [field.with_type(id_type(field.type)) if field.name in names else field for field in schema]
    )


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """Return the schema without metadata, all nullable, views and extensions as plain types.

    Files that differ only in these are the same to a user, and few kernels take views, or
    extensions such as UUID. List views stay: pyarrow 26 casts them to other values.
    """
    return pa.schema([pa.field(field.name, _plain_type(field.type)) for field in schema])


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if kind in _PLAIN:
        return _PLAIN[kind]
    if isinstance(kind, pa.BaseExtensionType):
        return _plain_type(kind.storage_type)
    fields = [kind.field(n) for n in range(kind.num_fields)]
    plain = [field.with_type(_plain_type(field.type)) for field in fields]
    if plain == fields:
        return kind
    if pa.types.is_struct(kind):
        return pa.struct(plain)
    if pa.types.is_map(kind):
        entries = plain[0].type
        return pa.map_(entries.field(0), entries.field(1), keys_sorted=kind.keys_sorted)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(plain[0], kind.list_size)
    if pa.types.is_list(kind):
        return pa.list_(plain[0])
    if pa.types.is_large_list(kind):
        return pa.large_list(plain[0])
    return kind
