"""Figures worked out on paper, the same as trec_eval's, and what must not be evaluated."""

from __future__ import annotations

import random
import sys
from math import log2
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ir_measures import RR, R, nDCG
from scipy.stats import permutation_test

from producer.quality.evaluate import Evaluation, evaluate, sign_flip_test
from producer.quality.judged_tables import evaluate_tables
from producer.quality.qrels import Qrels
from rankmill.errors import InputError, JobUnknown
from rankmill.output import cleanup
from rankmill.output.output import Output
from rankmill.settings import CHECKOUT
from tests.support.finished import candidates, finished, planned
from tests.support.inputs import pairs, write

PACKAGES = CHECKOUT / "examples" / "packages.parquet"

QRELS: Qrels = {
    "a": {"a2": 3, "a3": 1, "a4": 0, "elsewhere": 1},
    "b": {"b1": 1},
    "without candidates": {"c1": 2},
    "nothing relevant": {"d1": 0, "d2": -1},
}
ROWS = [
    *candidates("a", ["a1", "a2", "a3", "a4"], ["a2", "a4", "a3", "a1"]),
    *candidates("unjudged", ["a2", "b1"], ["b1", "a2"]),
    *candidates("b", ["b1", "b2"], ["b2", "b1"]),
    *candidates("nothing relevant", ["d1"], ["d1"]),
]


def values(evaluation: Evaluation) -> dict[str, tuple[float, float]]:
    return {each.measure: (each.before, each.after) for each in evaluation.comparisons}


def test_the_figures_are_those_worked_out_by_hand(tmp_path: Path) -> None:
    output = finished(planned(ROWS, tmp_path, shard_pairs=3))
    found = evaluate(output, QRELS, recall_at=(2, 3, 2))
    ideal = 3 + 1 / log2(3) + 1 / log2(4)
    before = (3 / log2(3) + 1 / log2(4)) / ideal + 1
    after = (3 + 1 / log2(4)) / ideal + 1 / log2(3)
    assert values(found) == {
        "nDCG@10": pytest.approx((before / 3, after / 3)),
        "RR@10": pytest.approx(((1 / 2 + 1) / 3, (1 + 1 / 2) / 3)),
        "R@2": pytest.approx(((1 / 3 + 1) / 3, (1 / 3 + 1) / 3)),
        "R@3": pytest.approx(((2 / 3 + 1) / 3, (2 / 3 + 1) / 3)),
    }
    assert (found.n_judged, found.n_queries) == (4, 3)
    assert (found.n_in_input, found.n_in_parts, found.before_by) == (2, 2, "rows")
    assert len(evaluate(output, QRELS, recall_at=()).comparisons) == 2
    changes = [(each.n_better, each.n_worse, each.n_equal) for each in found.comparisons]
    assert changes == [(1, 1, 1), (1, 1, 1), (0, 0, 3), (0, 0, 3)]
    assert found.comparisons[1].p_value == found.comparisons[2].p_value == 1


def test_a_score_of_the_input_orders_the_side_before(tmp_path: Path) -> None:
    rows = candidates("7", ["v", "w", "x", "y", "z"], ["v", "w", "x", "y", "z"])
    for row, score in zip(rows, [None, 0.5, float("nan"), 0.9, 0.5], strict=True):
        row |= {"query_id": 7, "score": score}
    output = finished(planned(rows, tmp_path))
    for judged, place in {"y": 1, "w": 2, "z": 3, "x": 4, "v": 5}.items():
        found = evaluate(output, {"7": {judged: 1}})
        assert found.before_by == "score"
        assert values(found)["RR@10"][0] == pytest.approx(1 / place)


def test_a_score_that_is_no_number_orders_nothing(tmp_path: Path) -> None:
    rows = [{**row, "score": text} for row, text in zip(ROWS, "123456789", strict=True)]
    found = evaluate(finished(planned(rows, tmp_path)), QRELS)
    assert found.before_by == "rows"
    assert found.comparisons == evaluate(finished(planned(ROWS, tmp_path / "o")), QRELS).comparisons


def test_no_measure_is_deeper_than_the_rows_that_a_cut_result_has(tmp_path: Path) -> None:
    found = evaluate(finished(planned(ROWS, tmp_path / "cut", top_k=1)), QRELS, recall_at=(100, 1))
    assert found.top_k == 1
    assert found.too_deep == ("nDCG@10", "RR@10", "R@100")
    assert values(found) == {
        "nDCG@1": pytest.approx((1 / 3, 1 / 3)),
        "RR@1": pytest.approx((1 / 3, 1 / 3)),
        "R@1": pytest.approx((1 / 3, 1 / 3 / 3)),
    }


def test_a_top_k_that_cut_no_query_lowers_nothing(tmp_path: Path) -> None:
    found = evaluate(finished(planned(ROWS, tmp_path, top_k=4)), QRELS)
    assert found.too_deep == () and values(found).keys() == {"nDCG@10", "RR@10", "R@100"}
    assert values(found)["R@100"] == pytest.approx(((2 / 3 + 1) / 3, (2 / 3 + 1) / 3))


def test_a_table_that_was_cut_is_not_measured_deeper_than_it_is(tmp_path: Path) -> None:
    before = pa.Table.from_pylist(ROWS)
    cut, whole = (
        pq.read_table(finished(planned(ROWS, tmp_path / str(top_k), top_k=top_k)).uri)
        for top_k in (2, None)
    )
    found = evaluate_tables(before, cut, QRELS)
    assert found.too_deep == ("nDCG@10", "RR@10", "R@100")
    assert values(found)["R@2"] == pytest.approx(((1 / 3 + 1) / 2, (1 / 3 + 1) / 2))
    assert evaluate_tables(before, whole, QRELS).too_deep == ()


def test_of_a_document_named_twice_the_better_place_counts_and_no_name_has_none(
    tmp_path: Path,
) -> None:
    rows = candidates("b", ["b1", "other"], ["other", "b1"])
    nameless = {**rows[0], "doc_id": None, "document": "9"}
    rows = [nameless, rows[0], rows[1], {**rows[0], "document": "-1"}]
    found = evaluate(finished(planned(rows, tmp_path, duplicates="keep")), QRELS)
    assert values(found)["RR@10"] == pytest.approx((1 / 3, 1 / 2 / 3))


def test_the_rank_counts_and_not_how_the_rows_stand(tmp_path: Path) -> None:
    output = finished(planned(ROWS, tmp_path))
    found = evaluate(output, QRELS)
    part = pq.read_table(output.part_uri(0))
    pq.write_table(part.take(list(range(part.num_rows))[::-1]), output.part_uri(0))
    assert evaluate(output, QRELS) == found


def test_folded_parts_and_ids_in_paths_are_read(tmp_path: Path) -> None:
    plain = evaluate(finished(planned(ROWS, tmp_path / "plain")), QRELS)
    for query_id in ("a", "b", "unjudged"):
        rows = [row for row in ROWS if row["query_id"] == query_id]
        rows = [{k: v for k, v in row.items() if k != "query_id"} for row in rows]
        write(rows, tmp_path / "in" / f"query_id={query_id}" / "in.parquet")
    job = planned([], tmp_path / "unused", input_uri=str(tmp_path / "in"), shard_pairs=2)
    columns = job.plan.columns.model_copy(update={"candidates": ("doc_id", "document")})
    plan = job.plan.model_copy(update={"columns": columns})
    output = finished(type(job)(job.record, plan))
    assert "candidates" in pq.read_schema(output.part_uri(0)).names
    assert evaluate(output, QRELS).comparisons == plain.comparisons


def test_means_are_exactly_those_of_pytrec_eval(tmp_path: Path) -> None:
    rng = random.Random(7)
    rows = pq.read_table(PACKAGES).to_pylist()
    for row in rows:
        row["document"] = str(rng.random())
    output = finished(planned(rows, tmp_path))
    qrels: Qrels = {}
    for row in rows:
        grade = 2 if row["is_answer"] else rng.choice([0, 0, 0, 1])
        qrels.setdefault(row["query_id"], {})[row["doc_id"]] = grade
    found = values(evaluate(output, qrels, recall_at=(20, 100)))
    shallow = values(evaluate(output, qrels, recall_at=(1,)))
    assert shallow.keys() == {"nDCG@10", "RR@10", "R@1"}
    assert all(shallow[name] == found[name] for name in shallow.keys() & found.keys())
    for side, score in enumerate((lambda row: row["bm25"], lambda row: float(row["document"]))):
        ranked: dict[str, dict[str, float]] = {}
        for row in sorted(rows, key=score, reverse=True):
            docs = ranked.setdefault(row["query_id"], {})
            docs[row["doc_id"]] = -float(len(docs))
        wanted = ir_measures.pytrec_eval.calc_aggregate([nDCG @ 10, R @ 20, R @ 100], qrels, ranked)
        cut = {query: dict(list(docs.items())[:10]) for query, docs in ranked.items()}
        wanted |= ir_measures.pytrec_eval.calc_aggregate([RR], qrels, cut)
        for measure, value in wanted.items():
            name = "RR@10" if measure == RR else str(measure)
            assert found[name][side] == pytest.approx(value, abs=1e-12)


def test_the_p_value_is_that_of_all_choices_of_signs() -> None:
    rng = np.random.default_rng(1)
    differences = rng.normal(0.3, 1, (11, 3)).round(1)
    found = sign_flip_test(differences)
    for column, p_value in enumerate(found):
        exact = permutation_test(
            (differences[:, column],), np.sum, permutation_type="samples", vectorized=False
        )
        assert p_value == pytest.approx(exact.pvalue, abs=0.01)
    assert found == sign_flip_test(differences)
    assert min(found) < 0.05 < max(found)


def test_a_p_value_is_never_0_and_no_difference_has_1() -> None:
    assert sign_flip_test(np.column_stack([np.ones(60), np.zeros(60)])) == [1 / 100_001, 1.0]


def test_what_cannot_be_evaluated_is_refused_in_one_line(tmp_path: Path) -> None:
    def check(output: Output, message: str, qrels: Qrels = QRELS, **options: Any) -> None:
        with pytest.raises(InputError, match=message) as raised:
            evaluate(output, qrels, **options)
        assert "\n" not in str(raised.value)

    done = finished(planned(ROWS, tmp_path / "done"))
    check(done, "none of the 1 queries that have.*'query_id'", {"A": {"a2": 1}})
    check(done, "every grade is below 1", {"a": {"a2": 0}})
    check(done, "a cutoff is at least 1", recall_at=(10, 0))
    cleanup.reopen(done)
    check(done, "state is 'finalizing'; it can be read once it has succeeded")
    for missing in ("query_id", "doc_id"):
        rows = [{key: row[key] for key in row if key != missing} for row in pairs(1, 2)]
        rows = [{**row, "document": "1"} for row in rows]
        output = finished(planned(rows, tmp_path / missing))
        check(output, f"the job has no {missing.removesuffix('_id')} ids.*--{missing[:-3]}-id-col")
    dropped = finished(planned(ROWS, tmp_path / "dropped", keep_cols=("query_id",)))
    check(dropped, "kept no column 'doc_id'.*--keep-cols")
    with pytest.raises(JobUnknown):
        evaluate(Output(str(tmp_path / "nothing")), QRELS)


def test_without_ir_measures_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    with pytest.raises(InputError, match=r"pip install 'rankmill\[eval\]'"):
        evaluate(Output(str(tmp_path)), QRELS)
