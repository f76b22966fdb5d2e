"""Measure how far scores moved, exactly and in bounded memory: values are sorted on disk."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from producer.tables.workspace import Workspace
from rankmill.contract.drift import ScoreBin, ScoreShift

_QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
_ENDS = {0.0: "min", 1.0: "max"}
_N_BINS = 20
_AT_ONCE = 2**20


def score_shift(
    workspace: Workspace, tables: Iterable[pa.Table], n_pairs: int
) -> ScoreShift | None:
    """Measure the shift between two sets of scores of the same pairs.

    Args:
        workspace: where values are sorted.
        tables: columns `before` and `after`, finite, of `n_pairs` pairs in all.
        n_pairs: the number of pairs; None is returned for 0.
    """
    if n_pairs == 0:
        return None
    before = workspace.array("before", np.float32, n_pairs)
    after = workspace.array("after", np.float32, n_pairs)
    shift = workspace.array("shift", np.float64, n_pairs)
    at = 0
    for table in tables:
        here = slice(at, at := at + table.num_rows)
        before[here], after[here] = table["before"].to_numpy(), table["after"].to_numpy()
        shift[here] = after[here].astype(np.float64) - before[here]
    for values in (before, after, shift):  # so that sums are the same at every run
        values.sort()
    zero = int(np.searchsorted(shift, 0.0))
    return ScoreShift(
        n_pairs=n_pairs,
        mean_before=float(before.mean(dtype=np.float64)),
        mean_after=float(after.mean(dtype=np.float64)),
        mean_shift=float(shift.mean()),
        mean_abs_shift=float((shift[zero:].sum() - shift[:zero].sum()) / len(shift)),
        shift_quantiles=quantiles(shift, _QUANTILES),
        ks=ks_distance(before, after),
        histogram=_histogram(before, after),
    )


def quantiles(ordered: np.ndarray, shares: Iterable[float]) -> dict[str, float]:
    """Return quantiles of sorted values by name: min, p5 for 0.05, max; linear, as in numpy."""
    found = {}
    for share in shares:
        low, between = divmod(share * (len(ordered) - 1), 1)
        pair = ordered[int(low) : int(low) + 2].astype(np.float64)
        name = _ENDS.get(share, f"p{share * 100:g}")
        found[name] = float(pair[0] + between * (pair[-1] - pair[0]))
    return found


def ks_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return the largest difference between the cumulative shares of two sorted samples."""
    return max(
        float(np.abs(_share(first, values) - _share(second, values)).max())
        for sample in (first, second)
        for values in _pieces(sample)
    )


def _share(ordered: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.searchsorted(ordered, values, side="right") / len(ordered)


def _histogram(before: np.ndarray, after: np.ndarray) -> tuple[ScoreBin, ...]:
    low, high = (float(end(before[at], after[at])) for end, at in ((min, 0), (max, -1)))
    n_bins = _N_BINS if low < high else 1
    edges = np.linspace(low, high, n_bins + 1, dtype=before.dtype)
    counts = [_counts(ordered, edges) for ordered in (before, after)]
    bins = zip(edges[:-1].tolist(), edges[1:].tolist(), *counts, strict=True)
    return tuple(
        ScoreBin(start=start, stop=stop, n_before=n_before, n_after=n_after)
        for start, stop, n_before, n_after in bins
    )


def _counts(ordered: np.ndarray, edges: np.ndarray) -> list[int]:
    begins = [*np.searchsorted(ordered, edges[:-1]), len(ordered)]
    counts: list[int] = np.diff(begins).tolist()
    return counts


def _pieces(values: np.ndarray) -> Iterable[np.ndarray]:
    return (values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE))
