"""Sample rows from places spread evenly over an input, the same rows every time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

import numpy as np
import pyarrow as pa

from producer.inputs.source import Source
from rankmill.contract.plan import REFUSAL_COLUMN
from rankmill.tables.files import Damaged, read_files
from rankmill.tables.row_bytes import decoded_bytes, pieces

# More places represent an input better if it changes along its length. Each costs about half a row
# group of reading.
_N_PLACES = 16

_BATCH_ROWS = 1024

# A sample is held in memory, and again by the process that measures it.
_MAX_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Sample:
    """Consecutive rows from several places, one place after the other.

    Attributes:
        table: the requested columns, then REFUSAL_COLUMN.
        sizes: the number of rows of each place.
        n_rows: rows of the whole input.
    """

    table: pa.Table
    sizes: tuple[int, ...]
    n_rows: int

    @property
    def is_all(self) -> bool:
        """Whether the sample is the whole input."""
        return sum(self.sizes) == self.n_rows

    def places(self) -> Iterator[slice]:
        """Yield the slice of each place in `table`."""
        for size, end in zip(self.sizes, accumulate(self.sizes), strict=True):
            yield slice(end - size, end)


def sample_places(n_rows: int, n_wanted: int) -> list[range]:
    """Return the row numbers to take: all, or stretches of equal length with equal gaps between."""
    if n_wanted >= n_rows:
        return [range(n_rows)] if n_rows else []
    n_places = min(_N_PLACES, n_wanted)
    ends = [at * n_wanted // n_places for at in range(n_places + 1)]
    skipped = [(2 * at + 1) * (n_rows - n_wanted) // (2 * n_places) for at in range(n_places)]
    return [range(ends[at] + skipped[at], ends[at + 1] + skipped[at]) for at in range(n_places)]


def read_sample(
    source: Source,
    columns: Sequence[str],
    n_wanted: int,
    damaged: Damaged,
    max_bytes: int = _MAX_BYTES,
) -> Sample:
    """Read `n_wanted` rows, or all; places in the same row group are read together.

    Fewer rows are read if by the footers they would take more than `max_bytes`. A place ends early
    if its rows take more than its share.

    Args:
        source: the input.
        columns: names to read.
        n_wanted: rows to read.
        damaged: what to do with damaged files.
        max_bytes: decoded bytes of the whole sample.

    Raises:
        InputError: as `read_files`.
    """
    row_bytes = int(source.group_bytes.sum()) / max(1, source.n_rows)
    fitting = max(_N_PLACES, int(max_bytes / max(1, row_bytes)))
    places = sample_places(source.n_rows, min(n_wanted, fitting))
    share = max_bytes // max(1, len(places))
    edges = np.cumsum(source.group_rows)
    tables = [
        table
        for _, near in groupby(places, lambda rows: np.searchsorted(edges, rows.start, "right"))
        for table in _read(source, columns, list(near), share, damaged)
    ]
    fields = [source.schema.field(name) for name in columns]
    nothing = pa.schema([*fields, pa.field(REFUSAL_COLUMN, pa.string())]).empty_table()
    return Sample(
        table=pa.concat_tables(tables) if tables else nothing,
        sizes=tuple(table.num_rows for table in tables),
        n_rows=source.n_rows,
    )


def _read(
    source: Source, columns: Sequence[str], places: list[range], max_bytes: int, damaged: Damaged
) -> list[pa.Table]:
    """Read the first rows of each place, up to `max_bytes` but at least one row."""
    found: list[list[pa.Table]] = [[] for _ in places]
    room = [max_bytes] * len(places)
    row = places[0].start
    for table in read_files(source.files, source.schema, columns, row, _BATCH_ROWS, damaged):
        for at, place in enumerate(places):
            start, stop = max(place.start, row), min(place.stop, row + table.num_rows)
            if start < stop and room[at] > 0:
                some = next(pieces(table.slice(start - row, stop - start), room[at]))
                found[at].append(some)
                room[at] -= decoded_bytes(some) if some.num_rows == stop - start else room[at]
        row += table.num_rows
        if row >= places[-1].stop:
            break
    return [pa.concat_tables(tables) for tables in found]
