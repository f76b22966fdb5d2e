"""Tuned fusion gains where the stages complement each other, and reports where it gains nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from producer.quality.drift.diff import diff
from producer.quality.evaluate import evaluate
from producer.quality.qrels import Qrels
from producer.quality.tuning import tune_fusion
from rankmill.errors import InputError
from tests.support.finished import finished, planned

N_QUERIES, N_CANDIDATES = 60, 12


def judged_rows(noise_of_first: float) -> tuple[list[dict[str, Any]], Qrels]:
    """Return rows whose two stages see the same relevance, each with noise of its own."""
    rng = np.random.default_rng(3)
    rows: list[dict[str, Any]] = []
    qrels: Qrels = {}
    for query in range(N_QUERIES):
        relevance = rng.integers(0, 3, N_CANDIDATES)
        relevance[0] = 2
        ours = relevance + rng.normal(0, 1.5, N_CANDIDATES)
        first = relevance + rng.normal(0, noise_of_first, N_CANDIDATES)
        for at in rng.permutation(N_CANDIDATES).tolist():
            ids = {"query_id": f"q{query}", "doc_id": f"d{query}-{at}"}
            texts = {"query": f"text {query}", "document": f"{ours[at]:.6f}"}
            rows.append({**ids, **texts, "score": float(first[at])})
        qrels[f"q{query}"] = {
            f"d{query}-{at}": int(grade) for at, grade in enumerate(relevance.tolist())
        }
    return rows, qrels


def test_stages_that_complement_each_other_gain(tmp_path: Path) -> None:
    rows, qrels = judged_rows(noise_of_first=1.5)
    tuning = tune_fusion(finished(planned(rows, tmp_path / "plain")), qrels)
    rrf, weighted = tuning.methods
    assert tuning.best is not None and tuning.best.gains
    assert weighted.ndcg == pytest.approx(tuning.model + weighted.change)
    assert len(weighted.of_folds) == tuning.n_folds == 5
    assert (rrf.method, weighted.method) == ("rrf", "weighted")
    # The chosen setting, as a job: eval shows it next to the model's ranks.
    options = {"fuse": "weighted", "fuse_weight": weighted.value}
    output = finished(planned(rows, tmp_path / "fused", **options))
    found = evaluate(output, qrels)
    plain, fused = found.comparisons[0], found.fused[0]
    assert (fused.measure, fused.before) == ("nDCG@10", plain.after)
    assert (plain.before, plain.after) == pytest.approx((tuning.first, tuning.model))
    assert fused.after > plain.after
    assert tune_fusion(output, qrels) == tuning  # the division into folds has a seed


def test_diff_compares_the_fused_order(tmp_path: Path) -> None:
    rows, _ = judged_rows(noise_of_first=1.5)
    plain = finished(planned(rows, tmp_path / "plain"))
    fused = [
        finished(planned(rows, tmp_path / method, fuse=method)) for method in ("rrf", "weighted")
    ]
    [churn] = diff(plain, fused[0], ks=[3]).churn
    assert churn.n_changed > 0
    assert diff(fused[0], fused[0], ks=[3]).churn[0].n_changed == 0
    drift = diff(plain, fused[1], ks=[3])
    assert drift.scores is not None and drift.scores.mean_abs_shift == 0
    assert [each.place for each in drift.most_changed[0].after] == [1, 2, 3, 4, 5]


def test_a_first_stage_of_noise_gains_nothing(tmp_path: Path) -> None:
    rows, qrels = judged_rows(noise_of_first=50)
    tuning = tune_fusion(finished(planned(rows, tmp_path)), qrels)
    assert tuning.best is None
    assert not any(each.gains for each in tuning.methods)
    assert tuning.methods[1].value >= 0.8


def test_held_out_queries_do_not_choose_their_own_setting(tmp_path: Path) -> None:
    rows, qrels = judged_rows(noise_of_first=1.5)
    output = finished(planned(rows, tmp_path))
    few = dict(list(qrels.items())[:2])
    tuning = tune_fusion(output, few, n_folds=2)
    one, other = ({query: few[query]} for query in few)
    alone = [tune_fusion(output, {**each, **_unjudged(each)}, n_folds=2) for each in (one, other)]
    assert {*tuning.methods[1].of_folds} == {alone[0].methods[1].value, alone[1].methods[1].value}


def _unjudged(qrels: Qrels) -> Qrels:
    """Return a query without candidates, whose nDCG is 0 by any setting."""
    return {"elsewhere": {next(iter(qrels)): 1}}


def test_what_cannot_be_tuned_is_refused(tmp_path: Path) -> None:
    rows, qrels = judged_rows(noise_of_first=1.5)
    output = finished(planned(rows[:24], tmp_path))
    with pytest.raises(InputError, match="--folds 61: give 2 or more, and not more than the 60"):
        tune_fusion(output, qrels, n_folds=61)
    with pytest.raises(InputError, match=r"--fuse-col query: .* has no such column.*it has: score"):
        tune_fusion(output, qrels, fuse_col="query")
    with pytest.raises(InputError, match="has none of the 2 queries"):
        tune_fusion(output, {"x": {"y": 1}, "z": {"y": 1}}, n_folds=2)
    cut = finished(planned(rows[:24], tmp_path / "cut", top_k=3))
    with pytest.raises(InputError, match=r"wrote the best 3 of each query alone.*without --top-k"):
        tune_fusion(cut, qrels)
