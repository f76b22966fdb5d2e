"""Write a prepared dataset's files: a million rows each, in row groups that shards can cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, count, islice
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from rankmill import storage

_GROUP_ROWS = 16384
_GROUP_BYTES = 64 * 2**20
_PART_GROUPS = 64


def write_parts(target_uri: str, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Publish `part-00000.parquet` and so on; without rows there is one empty file."""
    groups = _row_groups(schema, tables)
    for number in count():
        first = list(islice(groups, 1))
        if not first and number:
            return
        part = chain(first, islice(groups, _PART_GROUPS - 1))

        def write(file: IO[bytes], part: Iterable[pa.Table] = part) -> None:
            with pq.ParquetWriter(
                file, schema, compression="zstd", write_page_checksum=True
            ) as writer:
                for group in part:
                    writer.write_table(group, row_group_size=_GROUP_ROWS)

        storage.publish(storage.child(target_uri, f"part-{number:05d}.parquet"), write)


def _row_groups(schema: pa.Schema, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the rows in tables of _GROUP_ROWS, or of _GROUP_BYTES if those are fewer rows."""
    waiting: list[pa.Table] = []
    n_rows, n_bytes = 0, 0
    for table in tables:
        while table.num_rows:
            some = table.slice(0, _GROUP_ROWS - n_rows)
            table = table.slice(some.num_rows)
            waiting.append(some)
            n_rows, n_bytes = n_rows + some.num_rows, n_bytes + some.nbytes
            if n_rows == _GROUP_ROWS or n_bytes >= _GROUP_BYTES:
                yield pa.concat_tables(waiting)
                waiting, n_rows, n_bytes = [], 0, 0
    if waiting:
        yield pa.concat_tables(waiting)
