"""How many rows of a row group may be decoded at a time, before any of them is seen.

A dictionary or a prefix gives many rows one large value that is stored once, and a null in a column
of fixed width takes its whole width: a file of 500 bytes may decode to gigabytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

import pyarrow.parquet as pq

from rankmill.errors import InputError
from rankmill.ranges import Fetched

# What the rows that are decoded at a time may take, if each has the largest value of its column.
_WORST_BYTES = 256 * 2**20
# What one row may have: its memory cannot be divided.
_MAX_WIDTH = 64 * 2**20
_MAX_ITEMS = 2**24
# Arrow grows an array of fixed width by doubling, each time with a copy.
_GROWTH = 4
_DICTIONARY_PAGE = 2
_SHARED_PREFIXES = "DELTA_BYTE_ARRAY"


def rows_at_once(
    uri: str,
    content: BinaryIO | Fetched,
    metadata: pq.FileMetaData,
    row_group: int,
    leaves: Sequence[int],
) -> int:
    """
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
    """A bound for the bytes of a value that is stored once for many rows; 0 where none is."""
    start = min(chunk.dictionary_page_offset or chunk.data_page_offset, chunk.data_page_offset)
    content.seek(max(0, start))
    kind, n_bytes = _page_header(content.read(16))
    stored_once = n_bytes if kind == _DICTIONARY_PAGE else 0
    prefixed = chunk.total_uncompressed_size if _SHARED_PREFIXES in chunk.encodings else 0
    return max(stored_once, prefixed)


def _page_header(content: bytes) -> tuple[int, int]:
    """A page's type and uncompressed size: the first two fields, in Thrift's compact protocol.

    Arrow takes the size from here as well, so that it cannot be another. What is no header is of
    no type: Arrow will say so.
    """
    values: list[int] = []
    at = 0
    for _ in range(2):
        if content[at : at + 1] != b"\x15":  # the next field, an integer of 32 bits
            return -1, 0
        number, shift, at = 0, 0, at + 1
        while at < len(content):
            number |= (content[at] & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if content[at - 1] < 0x80:
                break
        values.append(number >> 1)  # neither is negative
    return values[0], values[1]
