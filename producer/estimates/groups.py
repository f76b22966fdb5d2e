"""Count an input's queries and the candidates of each, from the key column alone."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from producer.estimates.sample import Sample
from producer.inputs.source import Source
from rankmill.contract.plan import Columns
from rankmill.tables.files import Damaged, key_runs, read_files

# Scanning this many keys takes seconds; above it, groups are inferred from the sample.
_MAX_SCANNED_ROWS = 20_000_000

_BATCH_ROWS = 64 * 1024


@dataclass(frozen=True)
class GroupSizes:
    """The query groups of an input.

    Attributes:
        n_groups: exact if `sizes` is known, else inferred from the sample.
        sizes: int64 (n_groups,), the candidates of each group, or None.
        n_returning: groups whose query occurred before, with other queries in between.
    """

    n_groups: int
    sizes: np.ndarray | None
    n_returning: int


def group_sizes(
    source: Source, columns: Columns, sample: Sample, damaged: Damaged, *, cluster: bool
) -> GroupSizes:
    """Count the groups of the key column, or infer them from the sample if there are too many rows.

    Args:
        source: the input.
        columns: which column plays which part.
        sample: rows of the input.
        damaged: what to do with damaged files.
        cluster: whether the job groups a query's scattered rows.
    """
    if source.n_rows > _MAX_SCANNED_ROWS:
        return GroupSizes(_inferred(sample, columns), None, 0)
    key = columns.group_key
    tables = read_files(source.files, source.schema, [key], 0, _BATCH_ROWS, damaged)
    return counted((table[key] for table in tables), columns, cluster=cluster)


def counted(
    keys: Iterable[pa.ChunkedArray], columns: Columns, *, cluster: bool = False
) -> GroupSizes:
    """Count groups of consecutive equal keys, as a worker does; a null joins the key before."""
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
    """Infer the number of groups from how often the key changes between neighbouring rows."""
    keys = sample.table[columns.group_key]
    n_begun = sum(counted([keys[place]], columns).n_groups - 1 for place in sample.places())
    n_neighbours = sum(sample.sizes) - len(sample.sizes)
    return 1 + round((sample.n_rows - 1) * n_begun / max(1, n_neighbours))
