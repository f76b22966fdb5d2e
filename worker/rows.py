"""The rows of a plan's files in one numbering, streamed; a shard gets whole query groups only."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rankmill import parquet
from rankmill.errors import InputError
from rankmill.output import Job
from rankmill.spec import REFUSAL_COLUMN, InputFile, Plan, ShardSpec

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
    job: Job, shard: ShardSpec, columns: Sequence[str], batch_rows: int
) -> Iterator[OwnedRows]:
    """The query groups that begin in the shard's row range, the last one to its end.

    Raises:
        InputError: a file changed or is damaged, or a query's rows are not together.
    """
    key = job.plan.columns.group_key
    reading = sorted({*columns, key})
    ownership = _Ownership(shard, key, is_text=job.plan.columns.query_id is None)
    # What is damaged must look the same to both shards that meet in it.
    looking = [key] if job.spec.damaged == "fail" else reading
    start_row = _first_read(job, shard, looking)
    for first_row, table in read_rows(job, reading, start_row, batch_rows):
        owned = ownership.of(first_row, table)
        if owned.table.num_rows:
            yield owned
        if ownership.is_over:
            return


def _first_read(job: Job, shard: ShardSpec, columns: Sequence[str]) -> int:
    """Where to read from to know which group a shard's first row is in.

    One row before it, or further back where that has no key.
    """
    key, is_text = job.plan.columns.group_key, job.plan.columns.query_id is None
    row, size = max(shard.start_row - 1, 0), 1
    while row > 0:
        _, table = next(read_rows(job, columns, row, max(size, _LOOK_BACK_ROWS)))
        keys = table[key].slice(0, size)
        if any(value is not None for value in _runs(keys, is_text=is_text)[1]):
            return row
        size *= 2
        row = max(row - size, 0)
    return row


def read_rows(
    job: Job, columns: Sequence[str] | None, start_row: int, batch_rows: int
) -> Iterator[tuple[int, pa.Table]]:
    """Tables of `batch_rows` rows from `start_row` on, each with its first row's number.

    Only the last is smaller: neither row groups nor files end a table. `columns`, or all, are
    followed by REFUSAL_COLUMN: why a row cannot be scored, or null.
    """
    waiting: list[pa.Table] = []
    n_waiting, row = 0, start_row
    for table in _read_files(job, columns, start_row, batch_rows):
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
    job: Job, columns: Sequence[str] | None, start_row: int, batch_rows: int
) -> Iterator[pa.Table]:
    planned = job.plan.schema
    fields = [planned.field(name) for name in columns or planned.names if name != REFUSAL_COLUMN]
    first_row = 0
    for file in job.plan.files:
        if first_row + file.n_rows > start_row:
            row = max(start_row - first_row, 0)
            yield from _read_file(job, file, pa.schema(fields), row, batch_rows)
        first_row += file.n_rows


def _read_file(
    job: Job, file: InputFile, schema: pa.Schema, row: int, batch_rows: int
) -> Iterator[pa.Table]:
    """The file's rows from `row` on, those of a damaged row group without values."""
    stored = [name for name in schema.names if name not in file.partition]
    if REFUSAL_COLUMN in job.plan.schema.names:
        stored.append(REFUSAL_COLUMN)
    while row < file.n_rows:
        try:
            for table in parquet.read_rows(file.stat, stored, row, batch_rows):
                row += table.num_rows
                yield _as_planned(table, file, schema)
        except parquet.DamagedRowGroup as damage:
            if job.spec.damaged == "fail":
                raise InputError(f"{damage}; --damaged reject sets its rows aside") from damage
            for start in range(row, damage.lost.stop, batch_rows):
                n_rows = min(batch_rows, damage.lost.stop - start)
                yield _refused(schema, n_rows, f"row group {damage.row_group} is damaged")
            row = damage.lost.stop


def _as_planned(table: pa.Table, file: InputFile, schema: pa.Schema) -> pa.Table:
    """The job's columns and types, which files may differ from in what a user does not see."""
    n_rows = table.num_rows
    arrays = [
        pa.repeat(pa.scalar(file.partition[field.name], field.type), n_rows)
        if field.name in file.partition
        else table[field.name].cast(field.type)
        for field in schema
    ]
    has_refusals = REFUSAL_COLUMN in table.column_names
    refusals = table[REFUSAL_COLUMN] if has_refusals else pa.nulls(n_rows, pa.string())
    return pa.Table.from_arrays([*arrays, refusals], names=[*schema.names, REFUSAL_COLUMN])


def _refused(schema: pa.Schema, n_rows: int, reason: str) -> pa.Table:
    arrays = [pa.nulls(n_rows, field.type) for field in schema]
    reasons = pa.repeat(pa.scalar(reason, pa.string()), n_rows)
    return pa.Table.from_arrays([*arrays, reasons], names=[*schema.names, REFUSAL_COLUMN])


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
                    f"the rows of a query must stand together: --cluster brings them"
                )
            self._seen.add(key)
            self._n_groups += 1
        return True


def _runs(keys: pa.ChunkedArray, *, is_text: bool) -> tuple[list[int], list[Any]]:
    """The ends and values of runs of equal keys, the values as `group_keys` gives them."""
    encoded = pc.run_end_encode(_comparable(keys))
    return encoded.run_ends.to_pylist(), group_keys(encoded.values, is_text=is_text)


def group_keys(keys: pa.Array | pa.ChunkedArray, *, is_text: bool) -> list[Any]:
    """What names the query group of each row: strings as bytes, no key as None.

    Args:
        is_text: the key is the query's text, where an empty one is no key either.
    """
    values = _comparable(keys).to_pylist()
    return [value if value and value.strip() else None for value in values] if is_text else values


def _comparable(keys: pa.Array | pa.ChunkedArray) -> pa.Array:
    array = keys.combine_chunks() if isinstance(keys, pa.ChunkedArray) else keys
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        array = array.cast(pa.large_binary())  # what is no UTF-8 can still be compared
    return array
