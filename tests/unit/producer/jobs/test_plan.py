"""The shards that a plan cuts an input into."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.jobs.check import plan_job
from producer.jobs.plan import shard_bounds
from rankmill.contract.job import JobSpec
from rankmill.errors import InputError
from tests.support.inputs import pairs

ROW_GROUPS = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**9)), max_size=50)


def cut(groups: list[tuple[int, int]], shard_pairs: int | None = None) -> tuple[int, ...]:
    rows = np.array([rows for rows, _ in groups], np.int64)
    sizes = np.array([size if rows else 0 for rows, size in groups], np.int64)
    return shard_bounds(rows, sizes, shard_pairs)


@given(groups=ROW_GROUPS, shard_pairs=st.none() | st.integers(10**4, 10**6))
def test_bounds_cover_every_row_once(
    groups: list[tuple[int, int]], shard_pairs: int | None
) -> None:
    bounds = cut(groups, shard_pairs)
    n_rows = sum(rows for rows, _ in groups)
    assert bounds[0] == 0 and bounds[-1] == n_rows
    assert bounds == (0, 0) or all(a < b for a, b in pairwise(bounds))


def test_shards_have_the_same_text_not_the_same_rows() -> None:
    bounds = cut([(100_000, 10**6), (100_000, 10**8)], shard_pairs=10_000)
    sizes = [b - a for a, b in pairwise(bounds)]
    assert sizes[0] > 10 * sizes[-1]
    assert 15 <= len(sizes) <= 25


def test_a_shard_begins_where_a_row_group_does_if_one_is_near() -> None:
    bounds = cut([(1050, 10**5)] * 40, shard_pairs=1000 * 2)
    assert all(bound % 1050 == 0 for bound in bounds)


@pytest.mark.parametrize(
    ("n_rows", "n_bytes", "n_shards"),
    [(0, 0, 1), (1000, 10**5, 1), (10**5, 10**7, 32), (10**7, 10**9, 306), (10**4, 2**33, 64)],
)
def test_without_a_wish_shards_are_neither_tiny_nor_huge(
    n_rows: int, n_bytes: int, n_shards: int
) -> None:
    assert len(cut([(n_rows, n_bytes)])) - 1 == n_shards


def test_tiny_files_share_a_shard() -> None:
    assert len(cut([(10, 1000)] * 10_000)) - 1 == 32


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("groups", "shard_pairs"),
    [([(10**12, 500)], None), ([(2**62, 500)] * 4, None), ([(10**6 + 1, 500)], 1)],
)
def test_more_shards_than_a_plan_may_have_are_refused(
    groups: list[tuple[int, int]], shard_pairs: int | None
) -> None:
    """A footer may name any number of rows."""
    n_rows = sum(rows for rows, _ in groups)
    with pytest.raises(InputError, match=rf"name {n_rows:,} rows of .* more than 1,000,000; "):
        cut(groups, shard_pairs)
    assert len(cut([(10**6, 500)], 1)) == 10**6 + 1


@pytest.mark.parametrize(("keep_cols", "n_shards"), [(None, 2), (("page",), 2), (("doc_id",), 1)])
def test_shards_are_cut_by_the_bytes_of_all_columns_that_are_read(
    tmp_path: Path, keep_cols: tuple[str, ...] | None, n_shards: int
) -> None:
    table = pa.Table.from_pylist(pairs(100, 10))
    page = pa.repeat(pa.scalar("x" * 140_000), table.num_rows)
    path = tmp_path / "in.parquet"
    pq.write_table(table.append_column("page", page), path, use_dictionary=False)
    values = {"input_uri": str(path), "output_uri": str(tmp_path / "out"), "model_id": "null"}
    plan = plan_job(JobSpec(**values, keep_cols=keep_cols)).plan
    assert len(plan.shard_bounds) - 1 == n_shards
