"""Limit the number of an input's columns: each one costs time in every later step."""

from __future__ import annotations

import pyarrow as pa

from rankmill.errors import InputError
from rankmill.settings import settings


def check_width(uri: str, schema: pa.Schema) -> None:
    """Check that a schema has no more columns than are allowed, fields of nested ones included.

    Raises:
        InputError: it has more than RANKMILL_MAX_COLUMNS.
    """

    def n_fields(kind: pa.DataType) -> int:
        return max(1, sum(n_fields(kind.field(n).type) for n in range(kind.num_fields)))

    check_n_columns(uri, sum(n_fields(field.type) for field in schema))


def check_n_columns(uri: str, n_columns: int) -> None:
    """Check that a number of columns, nested ones included, is allowed.

    Raises:
        InputError: it is more than RANKMILL_MAX_COLUMNS.
    """
    limit = settings().max_columns
    if n_columns > limit:
        raise InputError(
            f"{uri}: has {n_columns} columns, nested ones counted, where {limit} are allowed; "
            "write fewer, or set RANKMILL_MAX_COLUMNS higher"
        )
