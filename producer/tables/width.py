"""How many columns an input has: each costs time in all that follows, each key of an object too."""

from __future__ import annotations

import pyarrow as pa

from rankmill.errors import InputError
from rankmill.settings import settings


def check_width(uri: str, schema: pa.Schema) -> None:
    """
    Raises:
        InputError: more columns than RANKMILL_MAX_COLUMNS, the fields of nested ones counted.
    """
    check_n_columns(uri, sum(_n_fields(each.type) for each in schema))


def check_n_columns(uri: str, n_columns: int) -> None:
    """
    Raises:
        InputError: more columns than RANKMILL_MAX_COLUMNS.
    """
    limit = settings().max_columns
    if n_columns > limit:
        raise InputError(
            f"{uri}: has {n_columns} columns, nested ones counted, where {limit} are allowed; "
            "write fewer, or set RANKMILL_MAX_COLUMNS higher"
        )


def _n_fields(kind: pa.DataType) -> int:
    return max(1, sum(_n_fields(kind.field(n).type) for n in range(kind.num_fields)))
