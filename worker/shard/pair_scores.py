"""All scores of a shard by the hash of their pair, for a later job: also those that top_k cuts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from rankmill import storage
from rankmill.output.output import Job
from rankmill.tables.pair_hash import SAVED_SCHEMA
from worker.shard.spill import Spill

_ROW_GROUP_ROWS = 64 * 1024


def write_scores(job: Job, shard_index: int, hashed: Spill) -> None:
    """Publish what `Scored.hashed` has, in the order of the input; a file also where there is none.

    Args:
        hashed: rows of SAVED_SCHEMA; nothing is added to them any more.
    """

    def write(file: IO[bytes]) -> None:
        with pq.ParquetWriter(
            file,
            SAVED_SCHEMA,
            compression="zstd",
            use_dictionary=["n_tokens"],
            write_page_checksum=True,
        ) as writer:
            for table in _row_groups(hashed.close() or ()):
                writer.write_table(table.cast(SAVED_SCHEMA), row_group_size=_ROW_GROUP_ROWS)

    storage.publish(job.output.shard_scores_uri(shard_index), write)


def _row_groups(pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    n_rows = 0
    for piece in pieces:
        waiting.append(piece)
        n_rows += piece.num_rows
        if n_rows >= _ROW_GROUP_ROWS:
            yield pa.concat_tables(waiting)
            waiting, n_rows = [], 0
    if waiting:
        yield pa.concat_tables(waiting)
