"""Check query groups: no document twice in a query, no query in two shards."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rankmill import storage
from rankmill.errors import InputError
from rankmill.output.output import Job
from rankmill.shown import clipped
from rankmill.tables.files import group_keys
from rankmill.tables.ids import comparable, named
from worker.arrow_text import joined
from worker.shard.reader import OwnedRows, owned_rows

_DIGEST_BYTES = 16
_SHOWN_CHARS = 80


class GroupChecks:
    """The facts about a shard's query groups that the checks need, collected range by range.

    Of each group it holds a 128-bit digest of the key. The document ids are held only where the job
    asks for distinct ones.
    """

    def __init__(self, job: Job) -> None:
        columns = job.plan.columns
        must_be_distinct = job.spec.duplicates == "fail" and columns.query_id is not None
        self._job = job
        self._group_key = columns.group_key
        self._doc_id = columns.doc_id if must_be_distinct else None
        self._last_group = -1
        self._digests: list[bytes] = []
        self._keys: list[pa.Array] = []  # of each group, in their order
        self._doc_ids: list[pa.Array] = []
        self._groups: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []

    def add(self, rows: OwnedRows) -> None:
        """Collect the next rows of the shard."""
        begins = np.flatnonzero(np.diff(rows.groups, prepend=self._last_group))
        self._last_group = int(rows.groups[-1])
        keys = rows.table[self._group_key].take(pa.array(begins))
        self._digests += _digests(_keys_of(self._job, keys))
        if self._doc_id is None:
            return
        ids = joined(rows.table[self._doc_id])
        ids = ids.dictionary_decode() if pa.types.is_dictionary(ids.type) else ids
        # A row without a query is with the group before it only until it is rejected.
        has_no_query = pc.is_null(joined(rows.table[self._group_key]), nan_is_null=True)
        if has_no_query.true_count:
            ids = pc.if_else(has_no_query, pa.scalar(None, ids.type), ids)
        self._doc_ids.append(ids)
        self._keys += keys.chunks
        self._groups.append(rows.groups)
        self._rows.append(rows.first_row + np.arange(len(rows.groups)))

    def check_documents(self) -> None:
        """Check that no query names a document twice.

        Raises:
            InputError: one does; it names the query, the document and two rows.
        """
        if not self._doc_ids:
            return
        doc_ids, rows = pa.chunked_array(self._doc_ids), np.concatenate(self._rows)
        codes = _codes(doc_ids)
        pairs = np.where(codes < 0, -1 - rows, (np.concatenate(self._groups) << 32) + codes)
        in_order = np.sort(pairs)
        twice = in_order[:-1][in_order[1:] == in_order[:-1]]
        if len(twice):
            at = np.flatnonzero(pairs == twice[0])
            query = named(pa.chunked_array(self._keys), int(twice[0]) >> 32)
            raise InputError(
                f"{self._group_key} {clipped(query, _SHOWN_CHARS)} has {self._doc_id} "
                f"{clipped(named(doc_ids, int(at[0])), _SHOWN_CHARS)} twice or more, in rows "
                f"{rows[at[0]]} and {rows[at[-1]]} counted from 0; "
                "--duplicates keep ranks each of them"
            )

    def write_digests(self, shard_index: int) -> None:
        """Publish the digests for `check_queries`, unless no query can be in two shards."""
        if _may_be_scattered(self._job):
            storage.write_bytes(self._job.output.queries_uri(shard_index), b"".join(self._digests))


def check_queries(job: Job) -> None:
    """Check that no query has rows in more than one shard, by the digests of all shards.

    Raises:
        InputError: one has; it names the query and two shards.
    """
    if not _may_be_scattered(job):
        return
    parts = [storage.read_bytes(job.output.queries_uri(n)) or b"" for n in range(job.plan.n_shards)]
    digests = np.frombuffer(b"".join(parts), dtype=f"V{_DIGEST_BYTES}")
    order = np.argsort(digests, kind="stable")
    same = np.flatnonzero(digests[order][1:] == digests[order][:-1])
    if not len(same):
        return
    ends = np.cumsum([len(part) // _DIGEST_BYTES for part in parts])
    first, again = np.searchsorted(ends, order[[same[0], same[0] + 1]], side="right").tolist()
    key = _key_with(job, first, digests[order[same[0]]].tobytes())
    raise InputError(
        f"{job.plan.columns.group_key} {key!r} has rows in shards {first} and {again}, with other "
        f"queries between them ({len(same)} such in all), so that its ranks would be wrong; "
        "--cluster brings the rows of each query together first"
    )


def _codes(ids: pa.ChunkedArray) -> np.ndarray:
    """Return int64 (n,), equal for equal ids, and -1 for null."""
    encoded = comparable(ids).dictionary_encode()
    codes = [pc.fill_null(chunk.indices, -1).to_numpy() for chunk in encoded.chunks]
    return np.concatenate(codes).astype(np.int64)


def _may_be_scattered(job: Job) -> bool:
    return job.plan.n_shards > 1 and not job.is_clustered


def _key_with(job: Job, shard_index: int, digest: bytes) -> object:
    """Return the key in a shard that has a digest; its rows are read again."""
    column = job.plan.columns.group_key
    for rows in owned_rows(job, job.shard(shard_index), [column], 8192):
        keys = _keys_of(job, rows.table[column])
        for key, found in zip(keys, _digests(keys), strict=True):
            if found == digest:
                return key.decode(errors="replace") if isinstance(key, bytes) else key
    return "?"


def _keys_of(job: Job, column: pa.ChunkedArray) -> list[object]:
    keys = group_keys(column, is_text=job.plan.columns.query_id is None)
    return [key for key in keys if key is not None]


def _digests(keys: Iterable[object]) -> list[bytes]:
    contents = (key if isinstance(key, bytes) else repr(key).encode() for key in keys)
    return [blake2b(content, digest_size=_DIGEST_BYTES).digest() for content in contents]
