"""Measure decoded rows and cut tables so that no piece takes much memory.

Arrow counts the text of a column in 32 bits, and fails if more than 2 GiB come together.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# The most that one piece of a table may take. A footer does not have this size: a dictionary, or
# prefixes that are left out, shorten texts by any factor.
PIECE_BYTES = 64 * 2**20

_OF_ANY_LENGTH = (pa.string(), pa.binary(), pa.large_string(), pa.large_binary())


def decoded_bytes(table: pa.Table) -> int:
    """Return the bytes of all rows; dictionaries count as their values written out."""
    return sum(
        int(_column(column).sum()) if pa.types.is_dictionary(column.type) else int(column.nbytes)
        for column in table.columns
    )


def row_bytes(table: pa.Table) -> np.ndarray:
    """Return the bytes of each row, int64 (n,)."""
    sizes = np.zeros(table.num_rows, np.int64)
    for column in table.columns:
        sizes += _column(column)
    return sizes


def stops(sizes: np.ndarray, max_rows: int, max_bytes: int = PIECE_BYTES) -> Iterator[int]:
    """Yield the ends of pieces that have at most so many rows and bytes, or one row.

    Args:
        sizes: int64 (n,), the bytes of each row.
        max_rows: the most rows of a piece.
        max_bytes: the most bytes of a piece of several rows.
    """
    ends, start = np.cumsum(sizes), 0
    while start < len(sizes):
        before = int(ends[start - 1]) if start else 0
        fitting = int(np.searchsorted(ends, before + max_bytes, side="right"))
        start = min(max(fitting, start + 1), start + max_rows)
        yield min(start, len(sizes))


def pieces(table: pa.Table, max_bytes: int = PIECE_BYTES) -> Iterator[pa.Table]:
    """Yield slices of a table that take at most so many bytes, or have one row."""
    if decoded_bytes(table) <= max_bytes:
        yield table
        return
    start = 0
    for stop in stops(row_bytes(table), table.num_rows, max_bytes):
        yield table.slice(start, stop - start)
        start = stop


def _column(column: pa.ChunkedArray) -> np.ndarray:
    sizes = [_array(chunk) for chunk in column.chunks]
    return np.concatenate(sizes) if sizes else np.zeros(0, np.int64)


def _array(array: pa.Array) -> np.ndarray:
    kind, n = array.type, len(array)
    if isinstance(array, pa.ExtensionArray):
        return _array(array.storage)
    if pa.types.is_dictionary(kind):
        values: np.ndarray = np.append(_array(array.dictionary), 0)
        positions = pc.fill_null(array.indices.cast(pa.int64()), len(values) - 1)
        return np.asarray(values[positions.to_numpy(zero_copy_only=False)])
    if kind in _OF_ANY_LENGTH:
        lengths = pc.fill_null(pc.binary_length(array).cast(pa.int64()), 0)
        return np.asarray(lengths.to_numpy(zero_copy_only=False))
    if pa.types.is_struct(kind):
        return sum((_array(field) for field in array.flatten()), np.zeros(n, np.int64))
    if n and (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        offsets = array.offsets.to_numpy().astype(np.int64)
        items = array.values.slice(offsets[0], offsets[-1] - offsets[0])
        ends = np.append(0, np.cumsum(_array(items)))[offsets - offsets[0]]
        return np.asarray(np.diff(ends) + 8)
    try:
        return np.full(n, max(1, kind.bit_width // 8), np.int64)
    except ValueError:  # of other types all rows count as the same
        return np.full(n, -(-array.nbytes // max(n, 1)), np.int64)
