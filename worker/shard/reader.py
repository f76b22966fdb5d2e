"""A job's rows read forward: where a shard stops the next goes on, its first rows read already."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa

from rankmill import storage
from rankmill.output.output import Job
from rankmill.tables.files import read_files
from rankmill.tables.row_bytes import PIECE_BYTES, decoded_bytes, row_bytes, stops
from worker.engine.prefetch import ahead

# Read while a shard is ranked and written: what a disk gives in about a tenth of a second.
_AHEAD_BYTES = 32 * 2**20


class _Held(NamedTuple):
    first_row: int
    table: pa.Table
    n_bytes: int

    @property
    def stop_row(self) -> int:
        return self.first_row + int(self.table.num_rows)


class RowReader:
    """Keeps its place, and the rows from the one before those that it gave out last; reads ahead.

    A shard is known to be over when the next one's first rows have been read, so that whoever runs
    the two in turn opens nothing between them and decodes no row group twice.
    """

    def __init__(self) -> None:
        self._source: object = None
        self._tables: Iterator[pa.Table] = iter(())
        self._held: deque[_Held] = deque()

    def tables(
        self, job: Job, columns: Sequence[str] | None, start_row: int, batch_rows: int
    ) -> Iterator[tuple[int, pa.Table]]:
        """Tables from `start_row` on, each with its first row's number.

        They have `batch_rows` rows at most and half as many at least, but for the last and where
        those would take more than PIECE_BYTES. `columns`, or all, are followed by REFUSAL_COLUMN:
        why a row cannot be scored, or null.

        Raises:
            InputError: a file changed or is damaged.
        """
        if self.at_hand(job, columns, start_row, batch_rows) is None:
            self._open(job, columns, start_row, batch_rows)
        row = start_row
        while table := self._take(row, batch_rows):
            yield row, table
            row += table.num_rows

    def at_hand(
        self, job: Job, columns: Sequence[str] | None, row: int, batch_rows: int
    ) -> pa.Table | None:
        """A row that was read for an earlier shard and is kept; None of any other.

        Raises:
            InputError: its file has changed since.
        """
        if self._source != _source(job, columns, batch_rows):
            return None
        for held in self._held:
            if held.first_row <= row < held.stop_row:
                _check_unchanged(job, row)
                return held.table.slice(row - held.first_row, 1)
        return None

    def _open(
        self, job: Job, columns: Sequence[str] | None, start_row: int, batch_rows: int
    ) -> None:
        self._held = deque([_Held(start_row, pa.table({}), 0)])
        plan = job.plan
        tables = read_files(
            plan.files, plan.schema, columns, start_row, batch_rows, job.spec.damaged
        )
        self._tables = ahead(tables, lambda table: int(table.nbytes), _AHEAD_BYTES)
        self._source = _source(job, columns, batch_rows)

    def _take(self, row: int, n_rows: int) -> pa.Table | None:
        """Up to `n_rows` from `row` on; None at the end."""
        while self._held[-1].stop_row < row + n_rows and not self._is_large(row, n_rows):
            if not self._read():
                break
        while self._held[0].stop_row < row:
            self._held.popleft()
        if self._is_large(row, n_rows):
            sizes = row_bytes(pa.concat_tables(self._between(row, row + n_rows)))
            n_rows = next(stops(sizes, n_rows))
        found = self._between(row, self._good_stop(row, n_rows))
        return pa.concat_tables(found) if found else None

    def _between(self, row: int, stop: int) -> list[pa.Table]:
        return [
            held.table.slice(max(row - held.first_row, 0), stop - max(row, held.first_row))
            for held in self._held
            if held.stop_row > row and held.first_row < stop
        ]

    def _is_large(self, row: int, n_rows: int) -> bool:
        """Whether some rows, as far as they are held, take more than a table may."""
        if sum(held.n_bytes for held in self._held if held.stop_row > row) <= PIECE_BYTES:
            return False
        return sum(map(decoded_bytes, self._between(row, row + n_rows))) > PIECE_BYTES

    def _good_stop(self, row: int, n_rows: int) -> int:
        """Where a table from `row` on ends so that it, or else the next, is in one piece.

        Whoever needs another in one piece copies it. What is held beyond `n_rows` does not matter,
        so that a reader that goes on cuts as a new one does.
        """
        half = (n_rows + 1) // 2
        ends = [h.stop_row for h in self._held if h.first_row < row + n_rows]
        for good in (ends, [end - half for end in ends]):
            if found := [stop for stop in good if row + half <= stop <= row + n_rows]:
                return found[-1]
        return row + n_rows

    def _read(self) -> bool:
        """Hold one more table; False at the end."""
        source, self._source = self._source, None  # nobody goes on after an error
        table = next(self._tables, None)
        self._source = source
        if table is None:
            return False
        self._held.append(_Held(self._held[-1].stop_row, table, decoded_bytes(table)))
        return True


def _source(job: Job, columns: Sequence[str] | None, batch_rows: int) -> object:
    asked = None if columns is None else tuple(columns)
    return job.job_id, job.record.submitted_at, asked, batch_rows


def _check_unchanged(job: Job, row: int) -> None:
    first_row = 0
    for file in job.plan.files:
        if first_row <= row < first_row + file.n_rows:
            storage.open_file(file.stat).close()
        first_row += file.n_rows
