"""Casts that keep every value equal, or name the first one that cannot be kept."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# From here on a float may stand for several integers: one of 16, 32 and 64 bits.
_FIRST_AMBIGUOUS = {16: 2**11, 32: 2**24, 64: 2**53}


class Inexact(ValueError):
    """A value that another type cannot hold; `at` is its place in the column."""

    def __init__(self, at: int, value: str) -> None:
        super().__init__(value)
        self.at = at


def exact_cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """The column in another type, all values equal.

    NaN is null among integers, as pandas means it. A float that may stand for several integers is
    none of them.

    Raises:
        Inexact: a value is not in the type.
    """
    if column.type == kind:
        return column
    if pa.types.is_null(column.type):
        return pa.chunked_array([pa.nulls(len(column), kind)])
    if pa.types.is_dictionary(column.type) and not pa.types.is_dictionary(kind):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type) and pa.types.is_integer(kind):
        return _whole(column).cast(kind)
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:
        at = _first_failure(column, lambda part: part.cast(kind))
        raise Inexact(at, shown(column, at)) from None


def shown(column: pa.ChunkedArray, at: int) -> str:
    """A value for people, also one that Python has no object for."""
    value = without_zone(column.slice(at, 1))
    try:
        return str(value.cast(pa.large_string())[0])
    except pa.ArrowException:
        return str(value[0])


def without_zone(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Instants as they are stored, in UTC: naming them in a zone needs the system's tables."""
    if pa.types.is_timestamp(column.type) and column.type.tz is not None:
        return column.cast(pa.timestamp(column.type.unit))
    return column


def _whole(column: pa.ChunkedArray) -> pa.ChunkedArray:
    limit = _FIRST_AMBIGUOUS[column.type.bit_width]
    column = column.cast(pa.float64())
    values = pc.if_else(pc.is_nan(column), None, column)
    good = pc.and_(pc.equal(pc.floor(values), values), pc.less(pc.abs(values), float(limit)))
    bad = np.flatnonzero(~pc.fill_null(good, True).to_numpy())
    if len(bad):
        raise Inexact(int(bad[0]), shown(column, int(bad[0])))
    return values.cast(pa.int64())


def _first_failure(
    column: pa.ChunkedArray, cast: Callable[[pa.ChunkedArray], pa.ChunkedArray]
) -> int:
    """The place of the first value that makes the cast of the column fail."""
    first, stop = 0, len(column)
    while stop - first > 1:
        middle = (first + stop) // 2
        try:
            cast(column.slice(first, middle - first))
            first = middle
        except pa.ArrowInvalid:
            stop = middle
    return first
