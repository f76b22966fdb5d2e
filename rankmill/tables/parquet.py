"""Read Parquet from any storage: footers in one read, rows in memory that row groups do not set."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rankmill import storage
from rankmill.errors import InputError, StorageUnavailable, is_memory_shortage, unexpected
from rankmill.storage import FileStat
from rankmill.storage.ranges import ByteRange, Fetched
from rankmill.tables.int96 import UNIT, UNITS, check_int96, is_int96
from rankmill.tables.read_size import rows_at_once
from rankmill.tables.row_bytes import PIECE_BYTES, decoded_bytes, pieces

# Row groups whose columns take no more than this are fetched whole: few, large reads. A larger one
# goes through a buffer for each column, so that its size does not set the memory of reading.
# Arrow could fetch by itself (pre_buffer), but its threads abort a process that ends while one
# still holds the file (apache/arrow#34314).
_FETCH_BYTES = 64 * 2**20
_BUFFER_BYTES = 8 * 2**20
# Read first of each row group, to measure its rows.
_FIRST_ROWS = 256


@dataclass(frozen=True)
class Footer:
    """A file's schema and row groups.

    Attributes:
        group_rows: int64 (n_row_groups,), the rows of each.
        group_bytes: int64 (n_row_groups,), the uncompressed size of the wanted columns. A
            dictionary counts once, however many rows have its values.
    """

    schema: pa.Schema
    group_rows: np.ndarray
    group_bytes: np.ndarray

    @property
    def n_rows(self) -> int:
        """The rows of all row groups."""
        return int(self.group_rows.sum())


def read_footer(file: FileStat, columns: Sequence[str] | None = None) -> Footer:
    """Return a file's schema and the sizes of its row groups.

    Args:
        file: as it was listed.
        columns: those that count for the sizes; None for all.

    Raises:
        InputError: the file is not Parquet, is truncated, or changed since `file`.
    """
    with storage.open_file(file) as content, _opened(file, content) as parquet:
        metadata = parquet.metadata
        groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
        if columns is None:  # there may be thousands, each in every row group
            sizes = [group.total_byte_size for group in groups]
        else:
            _check_chunks(file.uri, metadata, columns)
            leaves = _leaves(metadata, columns)
            sizes = [
                sum(group.column(leaf).total_uncompressed_size for leaf in leaves)
                for group in groups
            ]
        return Footer(
            parquet.schema_arrow,
            np.array([group.num_rows for group in groups], np.int64),
            np.array(sizes, np.int64),
        )


@contextmanager
def _opened(
    file: FileStat, content: BinaryIO | Fetched, **options: Any
) -> Iterator[pq.ParquetFile]:
    """Open `content` as Parquet, without Arrow's threads; raises as `read_footer`."""
    options = {"coerce_int96_timestamp_unit": UNIT} | options
    options |= {"pre_buffer": False, "page_checksum_verification": True}
    try:
        parquet = pq.ParquetFile(content, **options)
    except (OSError, pa.ArrowException) as error:
        _check_is_damage(error)
        content.seek(0)
        if content.read(4) == b"PAR1":
            message = f"{file.uri}: truncated or damaged Parquet, no footer"
            raise InputError(message) from error
        raise InputError(f"{file.uri}: not a Parquet file") from error
    except UnicodeDecodeError as error:
        message = f"{file.uri}: damaged Parquet, the name of a column is not UTF-8"
        raise InputError(message) from error
    with parquet:
        yield parquet


class DamagedRowGroup(InputError):
    """A row group that cannot be decoded; `lost` are the rows of the file that it did not give."""

    def __init__(self, uri: str, row_group: int, lost: range, reason: str) -> None:
        super().__init__(f"{uri}: row group {row_group} cannot be read: {reason}")
        self.row_group = row_group
        self.lost = lost


def read_rows(
    file: FileStat,
    columns: Sequence[str] | None,
    start_row: int,
    batch_rows: int,
    *,
    may_be_large: bool = False,
) -> Iterator[pa.Table]:
    """Yield the rows from `start_row` on, in order; earlier row groups are not read.

    Args:
        file: as it was listed.
        columns: the columns to read; None for all.
        start_row: the first row, counted through the file.
        batch_rows: the most rows of a table; large rows come in smaller tables.
        may_be_large: yield strings as large ones if a row has more than 2 GiB in a list.

    Raises:
        DamagedRowGroup: a row group cannot be decoded; all rows before it were yielded.
        InputError: microseconds cannot hold a timestamp of 96 bits, or a list is over 2 GiB.
    """
    names = None if columns is None else list(columns)
    with storage.open_file(file) as content, ExitStack() as stack:
        with _opened(file, content) as opened:
            metadata = opened.metadata
        _check_chunks(file.uri, metadata, columns)
        leaves = _leaves(metadata, columns)
        groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
        chunks = [_chunks(group, leaves) for group in groups]
        sizes = [sum(stop - start for start, stop in ranges) for ranges in chunks]
        is_small = max(sizes, default=0) <= _FETCH_BYTES
        source = Fetched(content) if is_small and not storage.is_local(file.uri) else content

        def reopened(**options: Any) -> pq.ParquetFile:
            buffer = 0 if is_small else _BUFFER_BYTES
            options |= {"metadata": metadata, "buffer_size": buffer}
            return stack.enter_context(_opened(file, source, **options))

        decoder = _Decoder(file.uri, source, metadata, leaves, reopened)
        ends = np.cumsum([group.num_rows for group in groups]).tolist()
        first = bisect_right(ends, start_row)
        turns: Iterator[None] = repeat(None)
        if isinstance(source, Fetched):
            turns = stack.enter_context(closing(source.in_turn(chunks[first:])))
        for row_group, _ in zip(range(first, len(chunks)), turns, strict=False):
            stop = ends[row_group]
            row = stop - groups[row_group].num_rows
            try:
                for table in decoder.tables(row_group, row, names, batch_rows, may_be_large):
                    skip = min(max(start_row - row, 0), table.num_rows)
                    row += table.num_rows
                    if skip and names == []:  # the rows are counted; Arrow loses them in a slice
                        yield pa.table({"": pa.nulls(table.num_rows - skip)}).select([])
                    else:
                        yield table.slice(skip)
                if row < stop:
                    raise pa.ArrowInvalid(f"{stop - row} of its rows are missing")
            except (OSError, pa.ArrowException) as error:
                _check_is_damage(error)
                if _is_large_list(error):
                    raise InputError(
                        f"{file.uri}, row {row}: a list has more than 2 GiB; write its items "
                        "as rows of their own, or leave the column out"
                    ) from error
                reason = str(error).partition("\n")[0]
                lost = range(max(row, start_row), stop)
                raise DamagedRowGroup(file.uri, row_group, lost, reason) from error


class _Decoder:
    """Decodes the row groups of one file, within the memory that `rows_at_once` allows."""

    def __init__(
        self,
        uri: str,
        source: BinaryIO | Fetched,
        metadata: pq.FileMetaData,
        leaves: Sequence[int],
        opened: Callable[..., pq.ParquetFile],
    ) -> None:
        self._uri, self._source, self._metadata, self._leaves = uri, source, metadata, leaves
        self._opened = opened
        self._parquet = opened()
        self._int96 = [
            metadata.schema.column(leaf).path for leaf in leaves if is_int96(metadata, leaf)
        ]
        units = UNITS if self._int96 else ()
        self._in_units = [opened(coerce_int96_timestamp_unit=unit) for unit in units]

    def tables(
        self,
        row_group: int,
        first_row: int,
        names: list[str] | None,
        batch_rows: int,
        may_be_large: bool,
    ) -> Iterator[pa.Table]:
        """Yield a row group; row by row if its lists have over 2 GiB together."""
        if self._int96:
            check_int96(self._uri, self._in_units, row_group, first_row, self._int96, batch_rows)
        at_once = rows_at_once(self._uri, self._source, self._metadata, row_group, self._leaves)
        n_rows = 0
        try:
            for table in _tables(self._parquet, row_group, names, batch_rows, at_once):
                yield table
                n_rows += table.num_rows
        except pa.ArrowNotImplementedError as error:
            if not _is_large_list(error):
                raise
            large = {"binary_type": pa.large_binary()} if may_be_large else {}
            yield from islice(_tables(self._opened(**large), row_group, names, 1, 1), n_rows, None)


def _tables(
    parquet: pq.ParquetFile, row_group: int, names: list[str] | None, batch_rows: int, at_once: int
) -> Iterator[pa.Table]:
    """Yield a row group in tables of `batch_rows`, or of fewer rows if those would be large.

    The first rows are few; their size sets the number that is read next, at most `at_once`.
    """
    if names == []:  # the rows are counted; Arrow loses them where it joins or cuts
        for batch in parquet.iter_batches(batch_rows, [row_group], columns=[], use_threads=False):
            yield pa.Table.from_batches([batch])
        return
    size = min(batch_rows, _FIRST_ROWS, at_once)
    waiting: list[pa.Table] = []
    n_rows, n_bytes = 0, 0
    batches = parquet.iter_batches(size, [row_group], columns=names, use_threads=False)
    for batch in batches:
        table = pa.Table.from_batches([batch])
        waiting.append(table)
        read_bytes = decoded_bytes(table)
        n_rows, n_bytes = n_rows + table.num_rows, n_bytes + read_bytes
        fitting = (PIECE_BYTES - n_bytes) * table.num_rows // max(1, read_bytes)
        if n_rows >= batch_rows or fitting < 1:
            yield from pieces(pa.concat_tables(waiting))
            waiting, n_rows, n_bytes = [], 0, 0
            fitting = PIECE_BYTES * table.num_rows // max(1, read_bytes)
        # Arrow takes a new size for the rest of the row group; ParquetFile cannot set it.
        parquet.reader.set_batch_size(min(batch_rows - n_rows, max(1, fitting), at_once))
    if waiting:
        yield from pieces(pa.concat_tables(waiting))


def _chunks(group: pq.RowGroupMetaData, leaves: Sequence[int]) -> list[ByteRange]:
    """Return the bytes of each column in a row group, its dictionary included."""
    ranges = []
    for chunk in map(group.column, leaves):
        start = min(chunk.dictionary_page_offset or chunk.data_page_offset, chunk.data_page_offset)
        ranges.append(ByteRange(start, start + chunk.total_compressed_size))
    return ranges


class _Unread(io.RawIOBase):
    """A file that ends whatever reads it."""

    class Read(Exception):
        """The file was read."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return 2**60  # its size, which the claims are compared with

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.tell() if whence else offset

    def read(self, size: int = -1) -> bytes:
        raise self.Read


def _check_chunks(uri: str, metadata: pq.FileMetaData, columns: Sequence[str] | None) -> None:
    """Check what the footer claims of each column in each row group; no data is read.

    `RowGroupMetaData.column` ends the process where a claim is wrong: it lets a C++ exception out.
    A reader raises it, before it reads anything.

    Raises:
        InputError: a claim is wrong.
    """
    names = None if columns is None else list(columns)
    parquet = pq.ParquetFile(_Unread(), metadata=metadata, pre_buffer=False, buffer_size=4096)
    for row_group in range(metadata.num_row_groups):
        try:
            next(parquet.iter_batches(1, [row_group], columns=names, use_threads=False), None)
        except _Unread.Read:
            continue
        except (OSError, pa.ArrowException) as error:
            _check_is_damage(error)
            reason = str(error).partition("\n")[0]
            raise InputError(f"{uri}: damaged Parquet, row group {row_group}: {reason}") from error


def _leaves(metadata: pq.FileMetaData, columns: Sequence[str] | None) -> list[int]:
    """Return the numbers of the physical columns that make up the named ones, or all for None."""
    if columns is None:
        return list(range(metadata.num_columns))
    inside = tuple(f"{column}." for column in columns)  # a column's own name may have dots
    paths = [f"{metadata.schema.column(leaf).path}." for leaf in range(metadata.num_columns)]
    return [leaf for leaf, path in enumerate(paths) if path.startswith(inside)]


def _is_large_list(error: Exception) -> bool:
    """Return whether Arrow failed because it cannot cut a column of lists into chunks."""
    return isinstance(error, pa.ArrowNotImplementedError) and "Nested data" in str(error)


def _check_is_damage(error: Exception) -> None:
    """Raise another error if Arrow's does not come from the content.

    An error number means the system; a failed allocation may be an error of any kind.
    """
    if is_memory_shortage(error):
        raise unexpected(error) from error
    if getattr(error, "errno", None):
        raise StorageUnavailable(str(error).partition("\n")[0]) from error
