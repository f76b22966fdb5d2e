"""How far scores moved, against scipy's and numpy's own figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from producer.quality.drift import scores
from producer.quality.drift.scores import ks_distance, quantiles, score_shift
from producer.tables.database import Database
from producer.tables.workspace import Workspace

# Few values, so that there are ties within and between the samples.
SAMPLES = st.lists(st.integers(-6, 6).map(lambda n: n / 4), min_size=1, max_size=40).map(
    lambda values: np.sort(np.array(values, np.float32))
)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of scipy's p-value, which nobody reads
@given(SAMPLES, SAMPLES)
def test_the_distance_is_that_of_scipy(first: np.ndarray, second: np.ndarray) -> None:
    found = ks_distance(first, second)
    assert found == pytest.approx(ks_2samp(first, second, method="exact").statistic, abs=1e-12)
    assert found == ks_distance(second, first)
    assert ks_distance(first, first) == 0


@given(SAMPLES)
def test_quantiles_are_those_of_numpy(values: np.ndarray) -> None:
    found = quantiles(values, [0, 0.01, 0.25, 0.5, 1])
    wanted = np.quantile(values.astype(np.float64), [0, 0.01, 0.25, 0.5, 1])
    assert list(found) == ["min", "p1", "p25", "p50", "max"]
    assert list(found.values()) == pytest.approx(wanted.tolist(), abs=1e-12)


def test_a_shift_is_found_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "_AT_ONCE", 7)
    rng = np.random.default_rng(5)
    before = rng.normal(0, 1, 1000).astype(np.float32)
    after = (before + rng.normal(0.2, 0.1, 1000)).astype(np.float32)
    table = pa.table({"before": before, "after": after})
    workspace = Workspace(tmp_path, Database(), lambda *_: None)
    tables = [table.slice(start, 64) for start in range(0, 1000, 64)]
    found = score_shift(workspace, tables, 1000)
    assert found is not None
    shift = after.astype(np.float64) - before
    assert found.mean_shift == pytest.approx(shift.mean())
    assert found.mean_abs_shift == pytest.approx(np.abs(shift).mean())
    assert found.shift_quantiles["p99"] == pytest.approx(np.quantile(shift, 0.99))
    assert found.ks == pytest.approx(ks_2samp(before, after).statistic)
    edges = np.array([found.histogram[0].start, *(each.stop for each in found.histogram)])
    assert [each.n_before for each in found.histogram] == np.histogram(before, edges)[0].tolist()
    assert [each.n_after for each in found.histogram] == np.histogram(after, edges)[0].tolist()
    assert (edges[0], edges[-1]) == (min(*before, *after), max(*before, *after))


def test_one_value_alone_is_one_bin_and_no_pairs_are_none(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, Database(), lambda *_: None)
    table = pa.table({name: pa.array([0.5, 0.5], pa.float32()) for name in ("before", "after")})
    found = score_shift(workspace, [table], 2)
    assert found and [each.n_after for each in found.histogram] == [2]
    assert score_shift(workspace, [], 0) is None
