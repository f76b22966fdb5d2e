"""Cast columns so that every value stays equal, or name the first one that cannot."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# From here on one float may be several integers, by its width in bits.
_FIRST_AMBIGUOUS = {16: 2**11, 32: 2**24, 64: 2**53}


class Inexact(ValueError):
    """A value that another type cannot hold; `at` is its index in the column."""

    def __init__(self, at: int, value: str) -> None:
        super().__init__(value)
        self.at = at


def exact_cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Return the column in another type, all values equal.

    NaN becomes null among integers, as pandas means it. Floats so large that each may be several
    integers are refused.

    Raises:
        Inexact: the type cannot hold a value.
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
        at, stop = 0, len(column)
        while stop - at > 1:  # bisect to the first value that cannot be cast
            middle = (at + stop) // 2
            try:
                column.slice(at, middle - at).cast(kind)
                at = middle
            except pa.ArrowInvalid:
                stop = middle
        raise Inexact(at, shown(column, at)) from None


def shown(column: pa.ChunkedArray, at: int) -> str:
    """Return a value for a message, also one that Python has no object for."""
    value = without_zone(column.slice(at, 1))
    try:
        return str(value.cast(pa.large_string())[0])
    except pa.ArrowException:
        return str(value[0])


def without_zone(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return instants in UTC, as they are stored; a named zone needs the system's tables."""
    if pa.types.is_timestamp(column.type) and column.type.tz is not None:
        return column.cast(pa.timestamp(column.type.unit))
    return column


def _whole(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return floats as int64, NaN as null."""
    limit = _FIRST_AMBIGUOUS[column.type.bit_width]
    column = column.cast(pa.float64())
    values = pc.if_else(pc.is_nan(column), None, column)
    good = pc.and_(pc.equal(pc.floor(values), values), pc.less(pc.abs(values), float(limit)))
    bad = np.flatnonzero(~pc.fill_null(good, True).to_numpy())
    if len(bad):
        raise Inexact(int(bad[0]), shown(column, int(bad[0])))
    return values.cast(pa.int64())
