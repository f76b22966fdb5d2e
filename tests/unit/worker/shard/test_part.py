from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.shard.part import activate, rank_groups
from worker.shard.spill import Spill


@given(
    sizes=st.lists(st.integers(1, 8), max_size=6),
    top_k=st.none() | st.integers(1, 5),
    seed=st.integers(0, 1000),
)
def test_ranks_equal_a_plain_sort_of_each_group(
    sizes: list[int], top_k: int | None, seed: int
) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    values = np.array([-3e38, -2, -1e-45, -0.0, 0.0, 1e-45, 2, 3e38], dtype=np.float32)
    logits = np.random.default_rng(seed).choice(values, len(groups))
    order, ranks = rank_groups(groups, logits, top_k)
    expected = []
    for group in range(len(sizes)):
        members = [i for i in range(len(groups)) if groups[i] == group]
        members.sort(key=lambda i: (-logits[i], i))
        expected += [(i, rank) for rank, i in enumerate(members, 1) if not top_k or rank <= top_k]
    assert list(zip(order.tolist(), ranks.tolist(), strict=True)) == expected


def test_sigmoid_is_exact_to_a_float_and_never_overflows() -> None:
    logits = np.array([-200, -20, -1, 0, 1, 12, 200], dtype=np.float32)
    with np.errstate(all="raise", under="ignore"):
        scores = activate(logits, "sigmoid")
    wanted = [1 / (1 + np.exp(-np.longdouble(x))) for x in logits]
    assert scores.dtype == np.float32
    assert scores == pytest.approx([float(x) for x in wanted], rel=1e-7, abs=1e-45)
    assert activate(logits, "none") is logits


def test_windows_without_rows_spill_nothing_however_large_their_dictionaries() -> None:
    """As where a model refuses each row of a shard."""
    large = pa.array(["x" * (65 * 2**20)])
    column = pa.DictionaryArray.from_arrays(pa.array([], pa.int8()), large)
    with ExitStack() as stack:
        spill = Spill(stack, None)
        spill.add(pa.table({"kept": column}))
        assert spill.close() is None
