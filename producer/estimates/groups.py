"""How many queries an input has and how many candidates each, from its key column alone."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from producer.estimates.sample import Sample
from producer.inputs.source import Source
from rankmill.contract.job import Columns
from rankmill.tables.files import Damaged, key_runs, read_files

# A scan of as many keys takes seconds; more are inferred from the sample.
_MAX_SCANNED_ROWS = 20_000_000

_BATCH_ROWS = 64 * 1024


@dataclass(frozen=True)
class GroupSizes:
    """The query groups of an input, as far as they are known.

    Attributes:
        n_groups: exact where `sizes` are there.
        sizes: int64 (n_groups,), the candidates of each; None where the sample was all to go by.
        n_returning: runs of rows whose query was there before, with other queries in between.
    """

    n_groups: int
    sizes: np.ndarray | None
    n_returning: int


def group_sizes(
    source: Source, columns: Columns, sample: Sample, damaged: Damaged, *, cluster: bool
) -> GroupSizes:
    """Read the key column, or infer from the sample where that would take long.

    Args:
        cluster: the job brings a query's scattered rows together.
    """
    if source.n_rows > _MAX_SCANNED_ROWS:
        return GroupSizes(_inferred(sample, columns), None, 0)
    key = columns.group_key
    tables = read_files(source.files, source.schema, [key], 0, _BATCH_ROWS, damaged)
    return counted((table[key] for table in tables), columns, cluster=cluster)


def counted(
    keys: Iterable[pa.ChunkedArray], columns: Columns, *, cluster: bool = False
) -> GroupSizes:
    """The groups that a worker would make of consecutive keys: no key goes with the one before."""
    sizes, hashes = array("q"), array("q")
    current: Any = None
    for chunk in keys:
        start = 0
        for end, key in zip(*key_runs(chunk, is_text=columns.query_id is None), strict=True):
            if sizes and (key is None or key == current):
                sizes[-1] += end - start
            else:
                sizes.append(end - start)
                hashes.append(hash(key))
                current = key
            start = end
    runs = np.array(sizes, np.int64)
    _, query_of_run = np.unique(np.array(hashes, np.int64), return_inverse=True)
    by_query = np.bincount(query_of_run, weights=runs).astype(np.int64)
    found = by_query if cluster else runs
    return GroupSizes(len(found), found, len(runs) - len(by_query))


def _inferred(sample: Sample, columns: Columns) -> int:
    """Groups in all rows, if they begin as often as between neighbouring rows of the sample."""
    keys = sample.table[columns.group_key]
    n_begun = sum(counted([keys[place]], columns).n_groups - 1 for place in sample.places())
    n_neighbours = sum(sample.sizes) - len(sample.sizes)
    return 1 + round((sample.n_rows - 1) * n_begun / max(1, n_neighbours))
