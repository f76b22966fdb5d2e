"""Ids of queries and documents: compared as bytes, written as one text in runs and judgments."""

from __future__ import annotations

import pyarrow as pa

from rankmill.tables.casts import exact_cast, shown, without_zone
from rankmill.tables.schema import id_type

_INT64_DIGITS = 18


def comparable(ids: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return text, bytes and times as large_binary, other values unchanged; no dictionary."""
    if pa.types.is_dictionary(ids.type):
        ids = ids.cast(ids.type.value_type)
    kind = ids.type
    if pa.types.is_duration(kind):
        return ids.cast(pa.int64())
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        # Python has no object for some of them, such as the year 10000.
        return without_zone(ids).cast(pa.large_string()).cast(pa.large_binary())
    if pa.types.is_fixed_size_binary(kind) or pa.types.is_binary(kind):
        return ids.cast(pa.large_binary())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return ids.cast(pa.large_binary())  # values that are not UTF-8 can still be compared
    return ids


def as_text(ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return ids as large_string, as runs and judgments write them.

    Bytes that are not UTF-8 are escaped; a decimal has no trailing zeros.

    Raises:
        Inexact: a float is not whole.
    """
    values = comparable(exact_cast(ids, id_type(ids.type)))
    if pa.types.is_decimal(values.type):
        digits = [None if value is None else f"{value:f}" for value in values.to_pylist()]
        texts = [
            text.rstrip("0").removesuffix(".") if text is not None and "." in text else text
            for text in digits
        ]
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
    """Return the id at a row for a message: text in quotes, other values plain."""
    kind = ids.type.value_type if pa.types.is_dictionary(ids.type) else ids.type
    if pa.types.is_temporal(kind):
        return shown(ids, at)
    return repr(ids[at].as_py())


def as_key(ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return ids as integers, booleans or bytes, which DuckDB compares as Arrow does.

    Raises:
        Inexact: a float is not whole.
        pa.ArrowNotImplementedError: the type cannot be an id, such as a list.
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
