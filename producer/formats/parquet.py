"""Read Parquet files as rows, without deleted rows and with damaged ones refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from producer.formats.rows import Rows, with_origin
from producer.tables.column_kinds import is_list
from rankmill.contract.plan import InputFile
from rankmill.tables.files import Damaged, read_files


def parquet_rows(
    files: tuple[InputFile, ...],
    schema: pa.Schema,
    *,
    damaged: Damaged = "fail",
    batch_rows: int = 4096,
    deleted: Mapping[str, np.ndarray] | None = None,
    lists: Sequence[str] = (),
) -> Rows:
    """Return the rows of Parquet files.

    Args:
        files: the files, in order.
        schema: as `rankmill.tables.schema.plain_schema` gives it, with the columns of the paths.
        damaged: `reject` yields the rows of a damaged row group as nulls with a refusal.
        batch_rows: the most rows in a table.
        deleted: by URI, sorted int64 (n,) row numbers to leave out.
        lists: columns of lists; one may have more than 2 GiB, so that their types become large.
    """
    large = pa.schema(
        field.with_type(_large(field.type)) if field.name in lists else field for field in schema
    )

    def tables(names: Sequence[str]) -> Iterator[pa.Table]:
        for file in files:
            row, gone = 0, (deleted or {}).get(file.uri)
            for table in read_files([file], large, names, 0, batch_rows, damaged):
                first, row = row, row + table.num_rows
                numbers = np.arange(first, row)
                if gone is not None:
                    start, stop = np.searchsorted(gone, (first, row))
                    numbers = np.delete(numbers, gone[start:stop] - first)
                    table = table.take(pa.array(numbers - first))
                yield with_origin(table, file, numbers)

    return Rows(files, schema, tables)


def _large(kind: pa.DataType) -> pa.DataType:
    """Return the type with 64-bit offsets, for lists and their items."""
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_large(field.type)) for field in kind.fields])
    if pa.types.is_string(kind):
        return pa.large_string()
    if pa.types.is_binary(kind):
        return pa.large_binary()
    return pa.large_list(_large(kind.value_type)) if is_list(kind) else kind
