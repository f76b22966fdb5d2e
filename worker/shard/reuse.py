"""What was looked up for a job's rows: scores of an earlier job, where one model has made both."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from rankmill import storage
from rankmill.contract.results import Scoring
from rankmill.contract.reuse import difference
from rankmill.errors import InputError
from rankmill.logs import get_logger
from rankmill.output.output import Job
from rankmill.tables.pair_hash import PAIR_HASH_TYPE

log = get_logger(__name__)

_SCORE = np.dtype("<u8")
_HASH = np.dtype("V16")
_READ_ROWS = 64 * 1024
# A window is made larger by what is known of its rows, so that the model gets as many as ever; not
# without bound, since their texts are held.
_MAX_STRETCH = 8


class KnownRows:
    """A job's packed scores by row number; all unknown where there are none or not ours.

    Attributes:
        refused: why an earlier job's scores may not be used.
        stretch: how many times larger windows may be for the unknown in them to fill them.
    """

    def __init__(self, job: Job, scoring: Scoring) -> None:
        """
        Raises:
            InputError: the scores are not those of this job.
        """
        self.refused: str | None = None
        self.stretch = 1
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
        self._scores = _RowFile(job.output.known_uri, _SCORE, job.plan.n_rows)
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
        """The packed scores of a range of rows, uint64 (stop - first,), 0 where none is known."""
        if self._scores is None:
            return np.zeros(stop - first, _SCORE)
        return self._scores.between(first, stop)

    def hashes(self, first: int, stop: int) -> pa.Array | None:
        """The hashes of a range of pairs, where they are at hand."""
        if self._hashes is None:
            return None
        content = pa.py_buffer(self._hashes.between(first, stop))
        return pa.Array.from_buffers(PAIR_HASH_TYPE, stop - first, [None, content])


class _RowFile:
    """A file with a record for each row of the plan, read forward for the most part."""

    def __init__(self, uri: str, record: np.dtype, n_rows: int) -> None:
        """
        Raises:
            InputError: it has not as many records.
        """
        file = storage.stat(uri)
        if file.size_bytes != n_rows * record.itemsize:
            raise InputError(f"{uri} was damaged: it tells of another number of rows")
        self._file = storage.open_file(file)
        self._first_row, self._read = 0, np.zeros(0, record)

    def close(self) -> None:
        self._file.close()

    def between(self, first: int, stop: int) -> np.ndarray:
        record, at = self._read.dtype, first - self._first_row
        if at < 0 or at + (stop - first) > len(self._read):
            self._file.seek(first * record.itemsize)
            content = self._file.read(max(stop - first, _READ_ROWS) * record.itemsize)
            self._first_row, self._read, at = first, np.frombuffer(content, record), 0
        return self._read[at : at + stop - first]
