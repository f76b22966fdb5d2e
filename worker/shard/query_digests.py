"""Which queries a shard held, so that one whose rows lie in two shards is found at the end."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import pyarrow as pa

from rankmill import storage
from rankmill.errors import InputError
from rankmill.output.output import Job
from rankmill.tables.files import group_keys
from worker.shard.ownership import OwnedRows, owned_rows

_DIGEST_BYTES = 16


class QueryKeys:
    """128-bit digests of the keys of a shard's query groups, in their order."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._last_group = -1
        self._digests: list[bytes] = []

    def add(self, rows: OwnedRows) -> None:
        begins = np.flatnonzero(np.diff(rows.groups, prepend=self._last_group))
        self._last_group = int(rows.groups[-1])
        column = rows.table[self._job.plan.columns.group_key].take(pa.array(begins))
        is_text = self._job.plan.columns.query_id is None
        keys = group_keys(column, is_text=is_text)
        self._digests += [_digest(key) for key in keys if key is not None]

    def write(self, shard_index: int) -> None:
        """Nothing where it cannot matter: one shard, or rows that were brought together."""
        if self._job.plan.n_shards > 1 and not self._job.is_clustered:
            storage.write_bytes(self._job.output.queries_uri(shard_index), b"".join(self._digests))


def check_queries(job: Job) -> None:
    """Raise InputError where a query has rows in more than one shard."""
    if job.plan.n_shards == 1 or job.is_clustered:
        return
    parts = [storage.read_bytes(job.output.queries_uri(n)) or b"" for n in range(job.plan.n_shards)]
    digests = np.frombuffer(b"".join(parts), dtype=f"V{_DIGEST_BYTES}")
    order = np.argsort(digests, kind="stable")
    same = np.flatnonzero(digests[order][1:] == digests[order][:-1])
    if not len(same):
        return
    ends = np.cumsum([len(part) // _DIGEST_BYTES for part in parts])
    first, again = np.searchsorted(ends, order[[same[0], same[0] + 1]], side="right").tolist()
    key = _key_of(job, first, digests[order[same[0]]].tobytes())
    raise InputError(
        f"{job.plan.columns.group_key} {key!r} has rows in shards {first} and {again}, with other "
        f"queries between them ({len(same)} such in all), so that its ranks would be wrong; "
        "--cluster brings the rows of each query together first"
    )


def _key_of(job: Job, shard_index: int, digest: bytes) -> object:
    is_text = job.plan.columns.query_id is None
    column = job.plan.columns.group_key
    for rows in owned_rows(job, job.shard(shard_index), [column], 8192):
        for key in group_keys(rows.table[column], is_text=is_text):
            if key is not None and _digest(key) == digest:
                return key.decode(errors="replace") if isinstance(key, bytes) else key
    return "?"


def _digest(key: object) -> bytes:
    content = key if isinstance(key, bytes) else repr(key).encode()
    return blake2b(content, digest_size=_DIGEST_BYTES).digest()
