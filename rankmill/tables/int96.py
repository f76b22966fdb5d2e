"""Check that microseconds of 64 bits can hold timestamps of 96 bits, as Spark once wrote them.

Arrow casts them to any unit, and wraps a value that the unit cannot hold. Seconds never wrap, so
that they show a wrap of microseconds. Nanoseconds show, modulo 2**64, digits that were cut off.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rankmill.errors import InputError

UNIT = "us"
UNITS = (UNIT, "s", "ns")


def is_int96(metadata: pq.FileMetaData, leaf: int) -> bool:
    """Return whether a physical column holds timestamps of 96 bits."""
    return bool(metadata.schema.column(leaf).physical_type == "INT96")


def check_int96(
    uri: str,
    readers: Sequence[pq.ParquetFile],
    row_group: int,
    first_row: int,
    paths: Sequence[str],
    batch_rows: int,
) -> None:
    """Check the timestamps of one row group.

    Args:
        uri: the file's name, for the error.
        readers: the file, opened in each of UNITS.
        row_group: its number in the file.
        first_row: the row group's first row in the file.
        paths: the columns with timestamps of 96 bits.
        batch_rows: rows to read at a time.

    Raises:
        InputError: microseconds cannot hold a value; it names the row and the column.
    """
    batches = [
        reader.iter_batches(
            batch_rows, row_groups=[row_group], columns=list(paths), use_threads=False
        )
        for reader in readers
    ]
    for in_units in zip(*batches, strict=True):
        for name, *columns in zip(in_units[0].schema.names, *in_units, strict=True):
            for micros, seconds, nanos in zip(*map(_leaves, columns), strict=True):
                bad = (micros // 10**6 != seconds) | (micros * 1000 != nanos)
                if bad.any():
                    is_nested = not pa.types.is_timestamp(columns[0].type)
                    row = "" if is_nested else f", row {first_row + int(bad.argmax())}"
                    raise InputError(
                        f"{uri}{row}: column '{name}' is INT96 and has a time that microseconds "
                        "cannot hold; write it as INT64, as Spark does with "
                        "spark.sql.parquet.outputTimestampType=TIMESTAMP_MICROS"
                    )
        first_row += in_units[0].num_rows


def _leaves(array: pa.Array) -> Iterator[np.ndarray]:
    """Yield the timestamps in an array and its fields, as int64, nulls as 0."""
    if pa.types.is_timestamp(array.type):
        yield array.cast(pa.int64()).fill_null(0).to_numpy()
    elif pa.types.is_struct(array.type):
        for field in array.flatten():
            yield from _leaves(field)
    elif pa.types.is_map(array.type):
        for entries in (array.keys, array.items):
            yield from _leaves(entries)
    else:
        yield from _leaves(array.flatten())
