"""Bound the rows of a row group to decode at a time, before any of them is decoded.

A dictionary or a prefix gives many rows one large value that is stored once. A null in a column of
fixed width takes its whole width. A file of 500 bytes may decode to gigabytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from rankmill.errors import InputError
from rankmill.storage.ranges import Fetched

# The most that rows decoded at a time may take, if each has the largest value of its column.
_WORST_BYTES = 256 * 2**20
# The most of one row, whose memory cannot be divided.
_MAX_WIDTH = 64 * 2**20
_MAX_ITEMS = 2**24
# Arrow grows an array of fixed width by doubling, each time with a copy.
_GROWTH = 4
_DICTIONARY_PAGE = 2
_SHARED_PREFIXES = "DELTA_BYTE_ARRAY"
# Dictionaries this small allow thousands of rows at a time, whatever is in them.
_SMALL_VALUE = 16 * 2**10
_CODECS = {
    "LZ4": "lz4_raw",
    **{name: name.lower() for name in ("SNAPPY", "GZIP", "BROTLI", "ZSTD")},
}
_LENGTH = struct.Struct("<I")  # before each value of a dictionary


def rows_at_once(
    uri: str,
    content: BinaryIO | Fetched,
    metadata: pq.FileMetaData,
    row_group: int,
    leaves: Sequence[int],
) -> int:
    """Return how many rows of a row group may be decoded at a time.

    Raises:
        InputError: a row is too large, by the type of a column or the number of its values.
    """
    group = metadata.row_group(row_group)
    row_bytes, n_rows = 0, max(1, group.num_rows)
    for leaf in leaves:
        chunk, column = group.column(leaf), metadata.schema.column(leaf)
        items = -(-chunk.num_values // n_rows)
        where = f"{uri}: row group {row_group}: column '{column.path}'"
        if items > _MAX_ITEMS:
            raise InputError(f"{where} has {items} values a row, more than {_MAX_ITEMS}")
        if column.physical_type == "FIXED_LEN_BYTE_ARRAY":
            if column.length > _MAX_WIDTH:
                raise InputError(f"{where} has values of {column.length} bytes; write it as binary")
            row_bytes += _GROWTH * items * column.length
        elif column.physical_type == "BYTE_ARRAY":
            average = chunk.total_uncompressed_size // n_rows
            row_bytes += max(average, items * _largest_value(content, chunk))
        else:
            row_bytes += 8 * items
    return max(1, _WORST_BYTES // max(1, row_bytes))


def _largest_value(content: BinaryIO | Fetched, chunk: pq.ColumnChunkMetaData) -> int:
    """Bound the bytes of a value that is stored once for many rows; 0 if none is."""
    prefixed = chunk.total_uncompressed_size if _SHARED_PREFIXES in chunk.encodings else 0
    start = chunk.dictionary_page_offset
    if start is None or start >= chunk.data_page_offset:
        start = chunk.data_page_offset
    content.seek(max(0, start))
    kind, n_bytes, n_stored = _page_header(content.read(32))
    if kind != _DICTIONARY_PAGE:
        return prefixed
    # A dictionary ends where the first data page begins.
    if n_bytes > _SMALL_VALUE and start < chunk.data_page_offset - n_stored:
        content.seek(chunk.data_page_offset - n_stored)
        n_bytes = _largest_entry(content.read(n_stored), chunk.compression, n_bytes)
    return max(n_bytes, prefixed)


def _largest_entry(stored: bytes, compression: str, n_bytes: int) -> int:
    """Return the length of a dictionary's largest value, or `n_bytes` if it cannot be read."""
    page = stored
    if compression != "UNCOMPRESSED":
        try:
            page = pa.Codec(_CODECS[compression]).decompress(stored, n_bytes, asbytes=True)
        except (KeyError, OSError, pa.ArrowInvalid):
            return n_bytes
    length_at, at, largest, end = _LENGTH.unpack_from, 0, 0, len(page) - _LENGTH.size
    while at <= end:
        (length,) = length_at(page, at)
        if length > largest:
            largest = length
        at += _LENGTH.size + length
    return largest if at == len(page) else n_bytes


def _page_header(content: bytes) -> tuple[int, int, int]:
    """Return a page's type, its uncompressed and its stored size.

    They are the first three fields of the header, in Thrift's compact protocol. Arrow takes the
    sizes from here as well, so that they cannot be others. A page without a valid header has type
    -1: Arrow will report it.
    """
    values: list[int] = []
    at = 0
    for _ in range(3):
        if content[at : at + 1] != b"\x15":  # the next field, an integer of 32 bits
            return -1, 0, 0
        number, shift, at = 0, 0, at + 1
        while at < len(content):
            number |= (content[at] & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if content[at - 1] < 0x80:
                break
        values.append(number >> 1)  # none is negative
    return values[0], values[1], values[2]
