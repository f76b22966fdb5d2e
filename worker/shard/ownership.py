"""The rows of a plan's files in one numbering, streamed; a shard gets whole query groups only."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa

from rankmill.contract.job import Plan, ShardSpec
from rankmill.errors import InputError
from rankmill.output.output import Job
from rankmill.tables.files import key_runs
from worker.shard.reader import RowReader

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
    job: Job,
    shard: ShardSpec,
    columns: Sequence[str],
    batch_rows: int,
    reader: RowReader | None = None,
) -> Iterator[OwnedRows]:
    """The query groups that begin in the shard's row range, the last one to its end.

    Args:
        reader: has perhaps read some of them for the shard before.

    Raises:
        InputError: a file changed or is damaged, or a query's rows are not together.
    """
    key = job.plan.columns.group_key
    reading = sorted({*columns, key})
    ownership = _Ownership(shard, key, is_text=job.plan.columns.query_id is None)
    # What is damaged must look the same to both shards that meet in it.
    looking = [key] if job.spec.damaged == "fail" else reading
    reader = reader or RowReader()
    before = reader.at_hand(job, reading, shard.start_row - 1, batch_rows)
    start_row = _first_read(job, shard, looking, before)
    for first_row, table in reader.tables(job, reading, start_row, batch_rows):
        owned = ownership.of(first_row, table)
        if owned.table.num_rows:
            yield owned
        if ownership.is_over:
            return


def _first_read(job: Job, shard: ShardSpec, columns: Sequence[str], before: pa.Table | None) -> int:
    """Where to read from to know which group a shard's first row is in.

    One row before it, which may be at hand, or further back where that has no key.
    """
    key, is_text = job.plan.columns.group_key, job.plan.columns.query_id is None
    row, size = max(shard.start_row - 1, 0), 1
    while row > 0:
        table = before
        if table is None:
            _, table = next(RowReader().tables(job, columns, row, max(size, _LOOK_BACK_ROWS)))
        before = None
        keys = table[key].slice(0, size)
        if any(value is not None for value in key_runs(keys, is_text=is_text)[1]):
            return row
        size *= 2
        row = max(row - size, 0)
    return row


def locate_row(plan: Plan, row: int) -> tuple[str, int]:
    """A row's file and its number within that, both as a user would name them, from 0."""
    ends = list(accumulate(file.n_rows for file in plan.files))
    index = bisect_right(ends, row)
    return plan.files[index].uri, row - (ends[index] - plan.files[index].n_rows)


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
        ends, keys = key_runs(table[self._key], is_text=self._is_text)
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
