"""Read a job's rows forward, and give each shard its own query groups, whole.

Rows are numbered through all files of the plan. A shard owns the query groups that begin in its row
range. It skips the end of a group begun before, and reads on to the end of its last group.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from rankmill import storage
from rankmill.contract.plan import InputFile, Plan, ShardSpec
from rankmill.errors import InputError
from rankmill.output.output import Job
from rankmill.tables.files import key_runs, read_files
from rankmill.tables.row_bytes import PIECE_BYTES, decoded_bytes, row_bytes, stops
from worker.engine.prefetch import ahead

# Read while a shard is ranked and written: what a disk gives in about a tenth of a second.
_AHEAD_BYTES = 32 * 2**20
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
        """The number behind the last row's."""
        return self.first_row + len(self.groups)

    def between(self, first: int, stop: int) -> OwnedRows:
        """Return the rows of a range of row numbers that lies within these."""
        at, size = first - self.first_row, stop - first
        return OwnedRows(self.table.slice(at, size), first, self.groups[at : at + size])


def owned_rows(
    job: Job,
    shard: ShardSpec,
    columns: Sequence[str],
    batch_rows: int,
    reader: RowReader | None = None,
) -> Iterator[OwnedRows]:
    """Yield the query groups that begin in the shard's row range, the last one to its end.

    Args:
        job: the job, whose plan lists the files.
        shard: the shard, by its row range.
        columns: the columns to read; the group's key is read besides.
        batch_rows: rows at a time at most.
        reader: a reader that may hold some of the rows since the shard before.

    Raises:
        InputError: a file changed or is damaged, or a query's rows are not together.
    """
    key, is_text = job.plan.columns.group_key, job.plan.columns.query_id is None
    names = sorted({*columns, key})
    reader = reader or RowReader()
    before = reader.cached_row(job, names, shard.start_row - 1, batch_rows)
    # Both shards that meet in a damaged row group must see the same of it.
    looked_at = [key] if job.spec.damaged == "fail" else names
    start_row = _row_with_key(job, shard.start_row - 1, looked_at, before)
    cutter = _GroupCutter(shard, key, is_text=is_text)
    for first_row, table in reader.tables(job, names, start_row, batch_rows):
        owned = cutter.cut(first_row, table)
        if owned.table.num_rows:
            yield owned
        if cutter.is_over:
            return


def locate_row(plan: Plan, row: int) -> tuple[InputFile, int]:
    """Return the file that holds a row of the plan, and the row's number in it, from 0."""
    ends = list(accumulate(file.n_rows for file in plan.files))
    index = bisect_right(ends, row)
    return plan.files[index], row - (ends[index] - plan.files[index].n_rows)


class _Held(NamedTuple):
    first_row: int
    table: pa.Table
    n_bytes: int

    @property
    def stop_row(self) -> int:
        return self.first_row + int(self.table.num_rows)


class RowReader:
    """Reads a job's rows forward, ahead of need, and keeps its place between two shards.

    A shard is over when the next shard's first rows have been read. The reader holds those, and the
    row before them. So a worker that runs the two in turn opens no file between them and decodes no
    row group twice.
    """

    def __init__(self) -> None:
        self._source: object = None
        self._tables: Iterator[pa.Table] = iter(())
        self._held: deque[_Held] = deque()

    def tables(
        self, job: Job, columns: Sequence[str] | None, start_row: int, batch_rows: int
    ) -> Iterator[tuple[int, pa.Table]]:
        """Yield tables from `start_row` on, each with its first row's number.

        A table has at most `batch_rows` rows, and at least half as many. Only the last may have
        fewer, and those whose rows would take more than PIECE_BYTES. REFUSAL_COLUMN follows
        `columns`, or all columns for None: why a row cannot be scored, or null.

        Raises:
            InputError: a file changed or is damaged.
        """
        if self.cached_row(job, columns, start_row, batch_rows) is None:
            self._held = deque([_Held(start_row, pa.table({}), 0)])
            tables = read_files(
                job.plan.files,
                job.plan.schema,
                columns,
                start_row,
                batch_rows,
                job.spec.damaged,
            )
            self._tables = ahead(tables, lambda table: int(table.nbytes), _AHEAD_BYTES)
            self._source = _source(job, columns, batch_rows)
        row = start_row
        while table := self._take(row, batch_rows):
            yield row, table
            row += table.num_rows

    def cached_row(
        self, job: Job, columns: Sequence[str] | None, row: int, batch_rows: int
    ) -> pa.Table | None:
        """Return a row that was read for an earlier shard and is held, or None.

        Raises:
            InputError: its file has changed since.
        """
        if self._source != _source(job, columns, batch_rows):
            return None
        for held in self._held:
            if held.first_row <= row < held.stop_row:
                storage.open_file(locate_row(job.plan, row)[0].stat).close()
                return held.table.slice(row - held.first_row, 1)
        return None

    def _take(self, row: int, n_rows: int) -> pa.Table | None:
        """Return up to `n_rows` rows from `row` on, or None at the end.

        A table in two pieces has to be copied into one. So the rows end, if possible, where a table
        that was read ends, or so that the next ones can. Rows held beyond `n_rows` do not matter,
        so that a reader that goes on cuts as a new one does.
        """
        while self._held[-1].stop_row < row + n_rows and not self._is_large(row, n_rows):
            source, self._source = self._source, None  # nothing goes on here after an error
            table = next(self._tables, None)
            self._source = source
            if table is None:
                break
            self._held.append(_Held(self._held[-1].stop_row, table, decoded_bytes(table)))
        while self._held[0].stop_row < row:
            self._held.popleft()
        if self._is_large(row, n_rows):
            sizes = row_bytes(pa.concat_tables(self._between(row, row + n_rows)))
            n_rows = next(stops(sizes, n_rows))
        stop, half = row + n_rows, (n_rows + 1) // 2
        ends = [held.stop_row for held in self._held if held.first_row < stop]
        for wanted in (ends, [end - half for end in ends]):
            if fitting := [end for end in wanted if row + half <= end <= stop]:
                stop = fitting[-1]
                break
        tables = self._between(row, stop)
        return pa.concat_tables(tables) if tables else None

    def _between(self, row: int, stop: int) -> list[pa.Table]:
        return [
            held.table.slice(max(row - held.first_row, 0), stop - max(row, held.first_row))
            for held in self._held
            if held.stop_row > row and held.first_row < stop
        ]

    def _is_large(self, row: int, n_rows: int) -> bool:
        """Return whether the held rows of a range take more bytes than a table may."""
        if sum(held.n_bytes for held in self._held if held.stop_row > row) <= PIECE_BYTES:
            return False
        return sum(map(decoded_bytes, self._between(row, row + n_rows))) > PIECE_BYTES


def _source(job: Job, columns: Sequence[str] | None, batch_rows: int) -> object:
    """Return what must be equal for a reader to go on where it is."""
    names = None if columns is None else tuple(columns)
    # A job that continues may accept damaged rows that it did not before.
    return job.job_id, job.record.submitted_at, job.spec.damaged, names, batch_rows


def _row_with_key(job: Job, row: int, columns: Sequence[str], cached: pa.Table | None) -> int:
    """Return `row`, or where it has no key a row before it from which on one has; 0 at the least.

    Reading from there shows the group of the row after `row`, also where that has no key.
    """
    key, is_text = job.plan.columns.group_key, job.plan.columns.query_id is None
    row, size = max(row, 0), 1
    while row > 0:
        table = cached
        if table is None:
            _, table = next(RowReader().tables(job, columns, row, max(size, _LOOK_BACK_ROWS)))
        cached = None
        keys = table[key].slice(0, size)
        if any(value is not None for value in key_runs(keys, is_text=is_text)[1]):
            return row
        size *= 2
        row = max(row - size, 0)
    return row


_NO_GROUP: Any = object()


class _GroupCutter:
    """Goes through the rows in order and cuts out the groups that begin in the shard's range.

    A row without a key cannot be ranked and will be rejected; it goes with the group before it.
    """

    def __init__(self, shard: ShardSpec, key: str, *, is_text: bool) -> None:
        self._shard = shard
        self._key = key
        self._is_text = is_text
        self._seen: set[Any] = set()
        self._current: Any = _NO_GROUP
        self._n_groups = 0
        self.is_over = False

    def cut(self, first_row: int, table: pa.Table) -> OwnedRows:
        """Return the shard's rows in the next table, and note whether the shard is over.

        Raises:
            InputError: a group of the shard comes again after another.
        """
        ends, keys = key_runs(table[self._key], is_text=self._is_text)
        begin, stop = table.num_rows, 0
        groups = np.empty(table.num_rows, dtype=np.int64)
        start = 0
        for end, key in zip(ends, keys, strict=True):
            has_no_key = key is None and self._current is not _NO_GROUP
            if not has_no_key and key != self._current:
                row = first_row + start
                if row >= self._shard.stop_row:
                    self.is_over = True
                    break
                if row >= self._shard.start_row:
                    if key in self._seen:
                        name = key.decode(errors="replace") if isinstance(key, bytes) else key
                        raise InputError(
                            f"{self._key} {name!r} comes again in row {row} after other queries; "
                            "the rows of a query must be together: --cluster brings them"
                        )
                    self._seen.add(key)
                    self._n_groups += 1
                self._current = key
            if self._n_groups:
                begin, stop = min(begin, start), end
                groups[start:end] = self._n_groups - 1
            start = end
        begin = min(begin, stop)
        return OwnedRows(table.slice(begin, stop - begin), first_row + begin, groups[begin:stop])
