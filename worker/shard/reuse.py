"""Take a shard's known scores from an earlier job, and save all of its scores for a later one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rankmill import storage
from rankmill.contract.results import Scoring
from rankmill.contract.reuse import difference, known_type
from rankmill.errors import InputError
from rankmill.logs import get_logger
from rankmill.output.output import Job
from rankmill.tables.pair_hash import PAIR_HASH_TYPE, saved_schema
from worker.shard.spill import Spill

log = get_logger(__name__)

_ROW_GROUP_ROWS = 64 * 1024
_HASH = np.dtype("V16")
_READ_ROWS = 64 * 1024
# A window grows with the share of known rows, so that the model gets as many pairs as ever. Its
# texts are held in memory, so the growth has a bound.
_MAX_STRETCH = 8


class KnownRows:
    """A job's known scores by row number; all are unknown where nothing is reused.

    Attributes:
        refused: why an earlier job's scores may not be used, or None.
        stretch: a factor for the size of windows, by which the unknown rows in them fill them.
    """

    def __init__(self, job: Job, scoring: Scoring) -> None:
        """Open the scores that were looked up when the job was prepared.

        Raises:
            InputError: the files have another number of rows than the job.
        """
        self.refused: str | None = None
        self.stretch = 1
        self._record = known_type(has_passages=job.spec.has_passages)
        self._scores: _RowFile | None = None
        self._hashes: _RowFile | None = None
        if job.spec.reuse_from is None or job.record.no_reuse is not None:
            return
        known = job.output.read_known()
        if known is None or known.job_id != job.job_id:
            self.refused = "known.json has gone"
            return
        self.refused = difference(known.scoring, scoring)
        if self.refused:
            log.warning("nothing is reused", reason=self.refused)
            return
        self._scores = _RowFile(job.output.known_uri, self._record, job.plan.n_rows)
        if job.spec.for_reuse:
            self._hashes = _RowFile(job.output.known_hashes_uri, _HASH, job.plan.n_rows)
        n_unknown = job.plan.n_rows - known.n_known
        self.stretch = min(_MAX_STRETCH, max(1, job.plan.n_rows // max(1, n_unknown)))

    def __enter__(self) -> KnownRows:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._scores, self._hashes):
            if file is not None:
                file.close()

    def scores(self, first: int, stop: int) -> np.ndarray:
        """Return the records of a range of rows, (stop - first,), with score 0 for unknown."""
        if self._scores is None:
            return np.zeros(stop - first, self._record)
        return self._scores.between(first, stop)

    def hashes(self, first: int, stop: int) -> pa.Array | None:
        """Return the hashes of a range of pairs, or None where they were not looked up."""
        if self._hashes is None:
            return None
        content = pa.py_buffer(self._hashes.between(first, stop))
        return pa.Array.from_buffers(PAIR_HASH_TYPE, stop - first, [None, content])


def write_scores(job: Job, shard_index: int, hashed: Spill) -> None:
    """Publish all scores of a shard by the hash of their pair, those that top_k cuts included.

    A shard without any publishes an empty file.

    Args:
        job: the job, which says where.
        shard_index: the shard's number.
        hashed: rows of `saved_schema` in the order of the input; it is closed here.
    """
    schema = saved_schema(has_passages=job.spec.has_passages)

    def write(file: IO[bytes]) -> None:
        with pq.ParquetWriter(
            file,
            schema,
            compression="zstd",
            use_dictionary=["n_tokens"],
            write_page_checksum=True,
        ) as writer:
            for table in _row_groups(hashed.close() or ()):
                writer.write_table(table.cast(schema), row_group_size=_ROW_GROUP_ROWS)

    storage.publish(job.output.shard_scores_uri(shard_index), write)


def _row_groups(pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Join pieces to tables of a row group or little more, one in memory at a time."""
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


class _RowFile:
    """A file with a record for each row of the plan, mostly read forward."""

    def __init__(self, uri: str, record: np.dtype, n_rows: int) -> None:
        """Open a file of `n_rows` records.

        Raises:
            InputError: it has another number of records.
        """
        file = storage.stat(uri)
        if file.size_bytes != n_rows * record.itemsize:
            raise InputError(
                f"{uri}: has {file.size_bytes:,} bytes instead of {n_rows * record.itemsize:,}, "
                "so it was damaged"
            )
        self._file = storage.open_file(file)
        self._first_row, self._read = 0, np.zeros(0, record)

    def close(self) -> None:
        self._file.close()

    def between(self, first: int, stop: int) -> np.ndarray:
        """Return the records of a range of rows, (stop - first,)."""
        record, at = self._read.dtype, first - self._first_row
        if at < 0 or at + (stop - first) > len(self._read):
            self._file.seek(first * record.itemsize)
            content = self._file.read(max(stop - first, _READ_ROWS) * record.itemsize)
            self._first_row, self._read, at = first, np.frombuffer(content, record), 0
        return self._read[at : at + stop - first]
