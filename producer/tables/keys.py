"""Turn key columns into values that DuckDB and Arrow compare alike."""

from __future__ import annotations

import pyarrow as pa

from producer.tables.column_kinds import is_text
from rankmill.errors import InputError
from rankmill.tables import ids
from rankmill.tables.casts import Inexact


def key_type(kind: pa.DataType, name: str) -> pa.DataType:
    """Return the type that `as_key` gives a column of type `kind`.

    Raises:
        InputError: no key can be made of the type; `name` is the column's.
    """
    return as_key(pa.chunked_array([], kind), name).type


def as_key(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return a column's values as keys that DuckDB compares as Arrow does.

    Raises:
        InputError: the type cannot be an id, such as a list, or a value has a fraction.
    """
    try:
        return ids.as_key(column)
    except Inexact as error:
        raise InputError(
            f"column '{name}' has the id {error}, which is not whole; write it as text"
        ) from error
    except pa.ArrowNotImplementedError as error:
        raise InputError(f"column '{name}' is {column.type}, which cannot be an id") from error


def id_family(kind: pa.DataType) -> str:
    """Return the name of a type's family; only ids of one family can be joined."""
    if is_text(kind):
        return "text"
    is_number = pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    key = key_type(kind, "id") if is_number else kind
    return "integer" if pa.types.is_integer(key) else str(kind)
