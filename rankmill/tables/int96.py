"""Timestamps of 96 bits, Spark's old ones, checked to be what microseconds of 64 bits can hold.

Arrow makes any unit of them and wraps what that cannot hold. Seconds never wrap, so that they show
where microseconds have; nanoseconds show, modulo 2**64, what microseconds have cut off.
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
    return bool(metadata.schema.column(leaf).physical_type == "INT96")


def check_int96(
    uri: str,
    readers: Sequence[pq.ParquetFile],
    row_group: int,
    first_row: int,
    paths: Sequence[str],
    batch_rows: int,
) -> None:
    """
    Args:
        readers: the file in each of UNITS.
        first_row: the row group's first row in the file.
        paths: of the columns of 96 bits.

    Raises:
        InputError: microseconds cannot hold a value.
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
    """The timestamps in an array, int64, nulls as 0."""
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
