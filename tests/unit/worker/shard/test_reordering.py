"""The summary of a reordering equals one that is counted query by query in plain Python."""

from __future__ import annotations

from math import ceil, log2
from typing import Any

import numpy as np
import pytest

from rankmill.contract.reordering import DEPTH, Reordering
from worker.shard.reordering import RankedRows, summarize


def random_rows(*, by_score: bool, n_queries: int = 40) -> RankedRows:
    """Return queries of 1 to 30 rows, with gaps where rows were rejected, ties and unknowns."""
    rng = np.random.default_rng(7)
    groups = np.repeat(np.arange(n_queries), rng.integers(1, 31, n_queries))
    n = len(groups)
    logits = np.round(rng.normal(0, 3, n), 1).astype(np.float32)
    first = np.round(rng.normal(0, 2, n), 1)
    first[rng.random(n) < 0.05] = np.nan
    return RankedRows(
        groups=groups,
        rows=np.cumsum(rng.integers(1, 3, n)) + 100,
        logits=logits,
        scores=logits / 2,
        lengths=rng.integers(1, 200, n),
        truncated=rng.random(n) < 0.3,
        first_scores=first if by_score else None,
    )


def places(values: list[float]) -> list[int]:
    """Return the place of each value, from the highest down; NaN comes last."""
    order = sorted(range(len(values)), key=lambda at: (values[at] != values[at], -values[at], at))
    order = sorted(order, key=lambda at: values[at] != values[at])
    return [order.index(at) + 1 for at in range(len(values))]


def counted(ranked: RankedRows) -> dict[str, Any]:
    """Return the same sums by loops."""
    sums: dict[str, Any] = dict.fromkeys(("n_queries", "n_new_first", "n_deep", "n_new"), 0)
    correlations, moved, slices = 0.0, [], {}
    by_rank = [[0, 0.0, 0.0] for _ in range(32)]
    for query in range(int(ranked.groups[-1]) + 1):
        at = np.flatnonzero(ranked.groups == query)
        n = len(at)
        after = places(ranked.logits[at].tolist())
        first = None if ranked.first_scores is None else ranked.first_scores[at].tolist()
        before = list(range(1, n + 1)) if first is None else places(first)
        if n > 1:
            sums["n_queries"] += 1
            sums["n_new_first"] += before[after.index(1)] != 1
            correlations += float(np.corrcoef(before, after)[0, 1])
        if n > DEPTH:
            sums["n_deep"] += 1
            sums["n_new"] += sum(a <= DEPTH < b for a, b in zip(after, before, strict=True))
        movement = sum(
            abs(log2(b / a)) / log2(a + 1) for a, b in zip(after, before, strict=True) if a <= DEPTH
        )
        moved.append((movement, n, int(ranked.rows[at[after.index(1)]])))
        for row, a in zip(at.tolist(), after, strict=True):
            logit = float(ranked.logits[row])
            if a <= 32:
                by_rank[a - 1] = [
                    x + y for x, y in zip(by_rank[a - 1], (1, logit, logit**2), strict=True)
                ]
            key = 2 ** ceil(log2(ranked.lengths[row])), bool(ranked.truncated[row])
            found = slices.setdefault(key, [0, 0, 0, 0.0])
            found[0] += 1
            found[1] += n > DEPTH >= a
            found[2] += n > DEPTH
            found[3] += logit
    moved.sort(reverse=True)
    return sums | {
        "correlations": correlations,
        "by_rank": [each for each in by_rank if each[0]],
        "slices": slices,
        "moved": moved[:3],
    }


@pytest.mark.parametrize("by_score", [False, True])
def test_the_sums_equal_those_of_loops(by_score: bool) -> None:
    ranked = random_rows(by_score=by_score)
    summary, plain = summarize(ranked), counted(ranked)
    assert summary.first_stage == ("score" if by_score else "rows")
    for name in ("n_queries", "n_new_first", "n_deep", "n_new"):
        assert getattr(summary, name) == plain[name], name
    assert summary.n_new > 0 and summary.n_new_first > 0
    assert summary.correlations == pytest.approx(plain["correlations"])
    by_rank = summary.by_rank
    assert list(zip(by_rank.n_rows, by_rank.logits, by_rank.squares, strict=True)) == [
        pytest.approx(tuple(each)) for each in plain["by_rank"]
    ]
    assert {
        (each.max_tokens, each.truncated): [each.n_rows, each.n_first, each.n_deep, each.logits]
        for each in summary.slices
    } == {key: pytest.approx(values) for key, values in plain["slices"].items()}
    found = [(each.movement, each.n_rows, each.rows[0].row) for each in summary.moved]
    assert found == [pytest.approx(each, abs=1e-6) for each in plain["moved"]]


def test_a_moved_query_shows_what_is_first_now_and_what_was() -> None:
    logits = np.array([0, 9, 1, 2, 3, 4, 5, 6], np.float32)
    n = len(logits)
    ranked = RankedRows(
        groups=np.zeros(n, np.int64),
        rows=np.arange(n) + 50,
        logits=logits,
        scores=logits,
        lengths=np.full(n, 9),
        truncated=np.zeros(n, bool),
        first_scores=None,
    )
    [moved] = summarize(ranked).moved
    assert [(each.row, each.before, each.after) for each in moved.rows] == [
        *((51, 2, 1), (57, 8, 2), (56, 7, 3), (55, 6, 4), (54, 5, 5)),
        *((53, 4, 6), (52, 3, 7), (50, 1, 8)),
    ]


def test_a_shard_without_rows_and_one_in_order_moved_nothing() -> None:
    nothing, still = np.empty(0, np.int64), np.arange(3, 0, -1)
    empty = RankedRows(
        groups=nothing,
        rows=nothing,
        logits=nothing.astype(np.float32),
        scores=nothing,
        lengths=nothing,
        truncated=nothing.astype(bool),
        first_scores=None,
    )
    same = RankedRows(
        groups=np.zeros(3, np.int64),
        rows=np.arange(3),
        logits=still.astype(np.float32),
        scores=still,
        lengths=still,
        truncated=still > 9,
        first_scores=None,
    )
    assert summarize(empty) == Reordering(
        first_stage="rows",
        n_queries=0,
        n_new_first=0,
        correlations=0,
        n_deep=0,
        n_new=0,
        by_rank=summarize(empty).by_rank,
        slices=(),
        moved=(),
    )
    unmoved = summarize(same)
    assert (unmoved.n_queries, unmoved.n_new_first, unmoved.correlations) == (1, 0, 1.0)
    assert unmoved.moved == ()
