"""Ids, which name queries and documents: one type in a job, one text in runs and judgments."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa

from rankmill.tables.casts import exact_cast, shown, without_zone

_INT64_DIGITS = 18


def id_type(kind: pa.DataType) -> pa.DataType:
    """The type in which a job holds ids of this type: floats are integers.

    pandas makes floats of integers among nulls; `7.0` would match no judgment for `7`.
    """
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.int64() if pa.types.is_floating(value) else kind


def with_id_types(schema: pa.Schema, names: Collection[str | None]) -> pa.Schema:
    """The schema with ids as a job holds them; their values are checked when they are read."""
    return pa.schema(
        [each.with_type(id_type(each.type)) if each.name in names else each for each in schema]
    )


def comparable(ids: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Text, bytes and times as large_binary, all others as they are, without a dictionary."""
    if pa.types.is_dictionary(ids.type):
        ids = ids.cast(ids.type.value_type)
    kind = ids.type
    if pa.types.is_duration(kind):
        return ids.cast(pa.int64())
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        # Python has no object for each of them, as for the year 10000.
        return without_zone(ids).cast(pa.large_string()).cast(pa.large_binary())
    if pa.types.is_fixed_size_binary(kind) or pa.types.is_binary(kind):
        return ids.cast(pa.large_binary())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return ids.cast(pa.large_binary())  # what is not UTF-8 can still be compared
    return ids


def as_text(ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Ids as large_string, as a run or judgments have them; what is not UTF-8 with escapes.

    Raises:
        Inexact: a float that is not whole.
    """
    values = comparable(exact_cast(ids, id_type(ids.type)))
    if pa.types.is_decimal(values.type):
        texts = [None if value is None else _digits(value) for value in values.to_pylist()]
        return pa.chunked_array([pa.array(texts, pa.large_string())])
    try:
        return values.cast(pa.large_string())
    except pa.ArrowInvalid:
        texts = [
            None if value is None else value.decode(errors="backslashreplace")
            for value in values.to_pylist()
        ]
        return pa.chunked_array([pa.array(texts, pa.large_string())])


def named(ids: pa.ChunkedArray, at: int) -> str:
    """An id for people: text in quotes, all else as it reads."""
    kind = ids.type.value_type if pa.types.is_dictionary(ids.type) else ids.type
    if pa.types.is_temporal(kind):
        return shown(ids, at)
    return repr(ids[at].as_py())


def as_key(ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Ids that DuckDB compares as Arrow does: integers, booleans and bytes.

    Raises:
        Inexact: a float that is not whole.
        pa.ArrowNotImplementedError: no ids, but lists or structs, say.
    """
    values = comparable(exact_cast(ids, id_type(ids.type)))
    kind = values.type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_large_binary(kind):
        return values
    if pa.types.is_decimal(kind) and kind.scale == 0 and kind.precision <= _INT64_DIGITS:
        return values.cast(pa.int64())
    if pa.types.is_decimal(kind):
        return as_text(values).cast(pa.large_binary())
    return values.cast(pa.large_string()).cast(pa.large_binary())


def _digits(value: object) -> str:
    """A decimal without the zeros that its scale adds."""
    text = f"{value:f}"
    return text.rstrip("0").removesuffix(".") if "." in text else text
