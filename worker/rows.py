"""The rows of a plan's files in one numbering, streamed; a shard gets whole query groups only."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rankmill import storage
from rankmill.errors import InputError, StorageUnavailable
from rankmill.spec import InputFile, Plan, ShardSpec

# Read at a time when looking back; much smaller batches make skipping in a row group slow.
_LOOK_BACK_ROWS = 8192


@dataclass(frozen=True)
class OwnedRows:
    """Some consecutive rows of a shard.

    Attributes:
        table: the columns asked for.
        first_row: the first row's number through all files.
        groups: int64 (n,), the shard's query groups counted from 0, never falling.
    """

    table: pa.Table
    first_row: int
    groups: np.ndarray

    @property
    def stop_row(self) -> int:
        return self.first_row + len(self.groups)

    def between(self, first: int, stop: int) -> OwnedRows:
        """Those of the rows whose numbers lie in a range within these."""
        at, size = first - self.first_row, stop - first
        return OwnedRows(self.table.slice(at, size), first, self.groups[at : at + size])


def owned_rows(
    plan: Plan, shard: ShardSpec, columns: Sequence[str], batch_rows: int
) -> Iterator[OwnedRows]:
    """The query groups that begin in the shard's row range, the last one to its end.

    Raises:
        InputError: a file changed or is damaged, or a query's rows are not together.
    """
    key = plan.columns.group_key
    reading = sorted({*columns, key})
    ownership = _Ownership(shard, key, is_text=plan.columns.query_id is None)
    for first_row, table in read_rows(plan, reading, _first_read(plan, shard), batch_rows):
        owned = ownership.of(first_row, table)
        if owned.table.num_rows:
            yield owned
        if ownership.is_over:
            return


def _first_read(plan: Plan, shard: ShardSpec) -> int:
    """Where to read from to know which group a shard's first row is in.

    One row before it, or further back where that has no key.
    """
    key, is_text = plan.columns.group_key, plan.columns.query_id is None
    row, size = max(shard.start_row - 1, 0), 1
    while row > 0:
        _, table = next(read_rows(plan, [key], row, max(size, _LOOK_BACK_ROWS)))
        keys = table[key].slice(0, size)
        if any(value is not None for value in _runs(keys, is_text=is_text)[1]):
            return row
        size *= 2
        row = max(row - size, 0)
    return row


def read_rows(
    plan: Plan, columns: Sequence[str] | None, start_row: int, batch_rows: int
) -> Iterator[tuple[int, pa.Table]]:
    """Tables of `batch_rows` rows from `start_row` on, each with its first row's number.

    Only the last is smaller: neither row groups nor files end a table.
    """
    waiting: list[pa.Table] = []
    n_waiting, row = 0, start_row
    for table in _read_files(plan, columns, start_row, batch_rows):
        waiting.append(table)
        n_waiting += table.num_rows
        while n_waiting >= batch_rows:
            together = pa.concat_tables(waiting)
            yield row, together.slice(0, batch_rows)
            waiting = [together.slice(batch_rows)]
            n_waiting, row = n_waiting - batch_rows, row + batch_rows
    if n_waiting:
        yield row, pa.concat_tables(waiting)


def locate_row(plan: Plan, row: int) -> tuple[str, int]:
    """A row's file and its number within that, both as a user would name them, from 0."""
    ends = list(accumulate(file.n_rows for file in plan.files))
    index = bisect_right(ends, row)
    return plan.files[index].uri, row - (ends[index] - plan.files[index].n_rows)


def _read_files(
    plan: Plan, columns: Sequence[str] | None, start_row: int, batch_rows: int
) -> Iterator[pa.Table]:
    first_row = 0
    for file in plan.files:
        if first_row + file.n_rows > start_row:
            for table in _read_file(file, columns, max(start_row - first_row, 0), batch_rows):
                yield readable(table)
        first_row += file.n_rows


def _read_file(
    file: InputFile, columns: Sequence[str] | None, start_row: int, batch_rows: int
) -> Iterator[pa.Table]:
    """The file's rows from its row `start_row` on; row groups before that are not touched."""
    status = storage.stat(file.uri)
    if (status.size_bytes, status.modified_ns) != (file.size_bytes, file.modified_ns):
        raise InputError(f"{file.uri} changed after the job was planned; submit it again")
    with read_errors(file.uri), pq.ParquetFile(storage.local_path(file.uri)) as parquet:
        row = 0
        for row_group in range(parquet.num_row_groups):
            n_rows = parquet.metadata.row_group(row_group).num_rows
            if row + n_rows > start_row:
                skip = max(start_row - row, 0)
                for table in _read_row_group(parquet, row_group, columns, batch_rows, file.uri):
                    yield table.slice(skip)
                    skip = max(skip - table.num_rows, 0)
            row += n_rows


def _read_row_group(
    parquet: pq.ParquetFile,
    row_group: int,
    columns: Sequence[str] | None,
    batch_rows: int,
    uri: str,
) -> Iterator[pa.Table]:
    with read_errors(f"{uri}: row group {row_group}"):
        for batch in parquet.iter_batches(
            batch_size=batch_rows,
            row_groups=[row_group],
            columns=None if columns is None else list(columns),
            use_threads=False,
        ):
            yield pa.Table.from_batches([batch])


@contextmanager
def read_errors(where: str) -> Iterator[None]:
    """Arrow's errors as ours: damage is permanent, what the operating system reports may pass."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        if getattr(error, "errno", None):
            raise StorageUnavailable(f"{where}: {reason}") from error
        raise InputError(f"{where} cannot be read: {reason}") from error


def readable(table: pa.Table) -> pa.Table:
    """A table as any other of the job: no metadata, all fields nullable, views as plain types.

    Files that differ in these alone are the same to a user, and few kernels take views.
    """
    plain = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    columns = [
        column.cast(plain[column.type]) if column.type in plain else column
        for column in table.columns
    ]
    return pa.Table.from_arrays(columns, names=table.column_names)


_NOTHING: Any = object()


class _Ownership:
    """Walks the rows in order and cuts out those whose group begins in the shard's range.

    A row without a key cannot be ranked and will be rejected; it goes with the group before it.
    """

    def __init__(self, shard: ShardSpec, key: str, *, is_text: bool) -> None:
        self._shard = shard
        self._key = key
        self._is_text = is_text
        self._seen: set[Any] = set()
        self._current: Any = _NOTHING
        self._n_groups = 0
        self.is_over = False

    def of(self, first_row: int, table: pa.Table) -> OwnedRows:
        ends, keys = _runs(table[self._key], is_text=self._is_text)
        begin, stop = table.num_rows, 0
        groups = np.empty(table.num_rows, dtype=np.int64)
        start = 0
        for end, key in zip(ends, keys, strict=True):
            goes_on = key is None and self._current is not _NOTHING
            if not goes_on and key != self._current:
                if not self._open(key, first_row + start):
                    break
                self._current = key
            if self._n_groups:
                begin, stop = min(begin, start), end
                groups[start:end] = self._n_groups - 1
            start = end
        begin = min(begin, stop)
        return OwnedRows(table.slice(begin, stop - begin), first_row + begin, groups[begin:stop])

    def _open(self, key: Any, row: int) -> bool:
        """Begin a group; False where it is the next shard's."""
        if row >= self._shard.stop_row:
            self.is_over = True
            return False
        if row >= self._shard.start_row:
            if key in self._seen:
                name = key.decode(errors="replace") if isinstance(key, bytes) else key
                raise InputError(
                    f"{self._key} {name!r} comes again in row {row} after other queries; "
                    f"the rows of a query must stand together: sort the input by {self._key}"
                )
            self._seen.add(key)
            self._n_groups += 1
        return True


def _runs(keys: pa.ChunkedArray, *, is_text: bool) -> tuple[list[int], list[Any]]:
    """The ends and values of runs of equal keys; strings as bytes, no key as None.

    Args:
        is_text: the key is the query's text, where an empty one is no key either.
    """
    array = keys.combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        array = array.cast(pa.large_binary())  # what is no UTF-8 can still be compared
    encoded = pc.run_end_encode(array)
    values = encoded.values.to_pylist()
    if is_text:
        values = [value if value and value.strip() else None for value in values]
    return encoded.run_ends.to_pylist(), values
