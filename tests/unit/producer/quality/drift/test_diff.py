"""A drift's figures are those worked out on paper, and by definition on random rankings."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import ks_2samp

from producer.cli.console import Console
from producer.cli.drift_view import show_drift
from producer.quality.drift.diff import diff
from producer.quality.drift.gate import parse
from rankmill.contract.drift import Drift
from rankmill.errors import InputError, JobUnknown, StorageRefused
from rankmill.output import cleanup
from rankmill.output.output import Output
from rankmill.settings import settings
from tests.support.finished import candidates, finished, planned
from tests.support.inputs import write

OLD = [
    *candidates("a", ["a1", "a2", "a3"], ["a2", "a1", "a3"]),
    *candidates("b", ["b1", "b2"], ["b1", "b2"]),
    *candidates("gone", ["g1"], ["g1"]),
]
NEW = [
    *candidates("b", ["b2", "b1"], ["b1", "b2"]),
    *candidates("a", ["a4", "a1", "a2"], ["a1", "a2", "a4"]),
    *candidates("came", ["c1", "c2"], ["c1", "c2"]),
]

Rankings = dict[str, list[str]]


def output(rows: list[dict[str, Any]], folder: Path, **options: Any) -> Output:
    return finished(planned(rows, folder, **options))


def both(tmp_path: Path, **options: Any) -> tuple[Output, Output]:
    return output(OLD, tmp_path / "old", **options), output(NEW, tmp_path / "new", **options)


def random_rankings(seed: int, n_queries: int = 150, most: int = 130) -> Rankings:
    """Make lists of different lengths, some longer than the depth that counts."""
    rng = random.Random(seed)
    universe = [f"d{n}" for n in range(most * 3 // 2)]
    return {
        f"q{n:03d}": rng.sample(universe, rng.choice([1, 3, 10, rng.randint(1, most)]))
        for n in range(n_queries)
    }


def rows_of(rankings: Rankings) -> list[dict[str, Any]]:
    return [row for query, docs in rankings.items() for row in candidates(query, docs, docs)]


def without(drift: Drift, *names: str) -> dict[str, Any]:
    return drift.model_dump(exclude=set(names))


def extrapolated_agreement(first: list[str], second: list[str], p: float, depth: int) -> float:
    """Rank-biased overlap by its definition, summed up as far as floats go.

    Beyond the shorter list's end its agreement is taken to go on, beyond the longer one's the last.
    """
    short, long = sorted((first[:depth], second[:depth]), key=len)
    at_short = len(set(short) & set(long[: len(short)])) / len(short)
    total = 0.0
    for d in range(1, 1000):
        if d <= len(long):
            seen = len(set(short[:d]) & set(long[:d]))
            agreement = (seen + at_short * max(d - len(short), 0)) / d
        total += (1 - p) * p ** (d - 1) * agreement
    return total


def test_the_figures_are_those_worked_out_by_hand(tmp_path: Path) -> None:
    old, new = both(tmp_path)
    found = diff(old, new, ks=(3, 1))
    assert (found.old.n_rows, found.old.n_pairs, found.old.n_queries) == (6, 6, 3)
    assert (found.new.n_rows, found.new.n_pairs, found.new.n_queries) == (7, 7, 3)
    assert found.keys.model_dump() == {"query": "id", "document": "id"}
    queries, pairs = found.queries, found.pairs
    assert (queries.n_common, queries.n_new, queries.n_vanished) == (2, 1, 1)
    assert (queries.new_share, queries.vanished_share) == (1 / 3, 1 / 3)
    assert (pairs.n_common, pairs.n_new, pairs.n_vanished) == (4, 3, 2)
    assert (pairs.new_share, pairs.vanished_share) == (3 / 7, 2 / 6)
    assert [each.model_dump() for each in found.churn] == [
        {"k": 1, "overlap": 0.5, "churn": 0.5, "n_changed": 1},
        {"k": 3, "overlap": pytest.approx(5 / 6), "churn": pytest.approx(1 / 6), "n_changed": 1},
    ]
    # a: nothing at 1, 2 of 2 at 2, 2 of 3 at 3 and on; 0.1 * 0.9 + (0.1 * 0.81 + 0.729) * 2 / 3
    assert found.rbo and found.rbo.mean == pytest.approx((0.63 + 1) / 2)
    assert (found.rbo.n_equal, found.rbo.quantiles["min"]) == (1, pytest.approx(0.63))
    assert found.scores is not None  # 3 2 2 1 before, 2 3 2 1 after
    assert (found.scores.n_pairs, found.scores.ks) == (4, 0)
    assert (found.scores.mean_shift, found.scores.mean_abs_shift) == (0, 0.5)
    assert (found.scores.mean_before, found.scores.mean_after) == (2, 2)
    assert (found.scores.shift_quantiles["min"], found.scores.shift_quantiles["p50"]) == (-1, 0)
    assert (found.ndcg, found.gate) == ((), None)


def test_the_most_changed_queries_are_shown_before_and_after(tmp_path: Path) -> None:
    [changed] = diff(*both(tmp_path)).most_changed
    assert (changed.query_id, changed.query, changed.n_before, changed.n_after) == ("a", None, 3, 3)
    before = [(each.place, each.doc_id, each.other_place) for each in changed.before]
    after = [(each.place, each.doc_id, each.other_place) for each in changed.after]
    assert before == [(1, "a2", 2), (2, "a1", 1), (3, "a3", None)]
    assert after == [(1, "a1", 2), (2, "a2", 1), (3, "a4", None)]
    assert [each.score for each in changed.before] == [3, 2, 1]
    assert not diff(*both(tmp_path / "none"), n_queries=0).most_changed


def test_by_definition_on_random_rankings(tmp_path: Path) -> None:
    old, new = random_rankings(1), random_rankings(2)
    for query in list(new)[:20]:
        new[query] = old[query][: len(old[query]) // 2 + 1]  # a list of which the other is more
    rows = rows_of(new)
    outputs = output(rows_of(old), tmp_path / "old", shard_pairs=900), output(rows, tmp_path / "n")
    found = diff(*outputs, ks=(1, 10), n_queries=1000)
    wanted = {q: extrapolated_agreement(old[q], new[q], 0.9, 100) for q in old}
    got = {str(each.query_id): each.rbo for each in found.most_changed}
    assert len(got) > 100 and found.rbo is not None
    assert got == pytest.approx({q: wanted[q] for q in got}, abs=1e-9)
    assert found.rbo.mean == pytest.approx(np.mean(list(wanted.values())))
    assert found.rbo.quantiles["p25"] == pytest.approx(np.quantile(list(wanted.values()), 0.25))
    assert list(got.values()) == sorted(got.values())
    for churn in found.churn:
        overlaps = [
            len({*old[q][: churn.k]} & {*new[q][: churn.k]})
            / max(len(old[q][: churn.k]), len(new[q][: churn.k]))
            for q in old
        ]
        assert churn.overlap == pytest.approx(np.mean(overlaps))
        assert churn.n_changed == sum(each < 1 for each in overlaps)
    pairs = [{(q, doc): len(r[q]) - n for q in r for n, doc in enumerate(r[q])} for r in (old, new)]
    common = pairs[0].keys() & pairs[1].keys()
    before, after = ([side[pair] for pair in common] for side in pairs)
    assert found.scores is not None
    assert found.scores.ks == pytest.approx(ks_2samp(before, after, method="asymp").statistic)
    assert found.scores.mean_shift == pytest.approx(np.mean(np.subtract(after, before)))
    assert sum(each.n_before for each in found.scores.histogram) == len(common)


def test_an_output_does_not_differ_from_itself(tmp_path: Path) -> None:
    one = output(rows_of(random_rankings(3)), tmp_path)
    found = diff(one, one)
    assert found.most_changed == () and found.rbo and found.scores
    assert found.rbo.mean == found.rbo.quantiles["min"] == 1
    assert [(each.overlap, each.churn, each.n_changed) for each in found.churn] == [(1, 0, 0)]
    assert (found.scores.ks, found.scores.mean_shift, found.scores.mean_abs_shift) == (0, 0, 0)
    assert (found.pairs.n_new, found.pairs.n_vanished, found.queries.n_new) == (0, 0, 0)


def test_the_other_way_round_it_is_the_same_distance(tmp_path: Path) -> None:
    first = output(rows_of(random_rankings(4)), tmp_path / "first")
    second = output(rows_of(random_rankings(5, n_queries=120)), tmp_path / "second")
    there, back = diff(first, second), diff(second, first)
    assert there.churn == back.churn and there.rbo == back.rbo
    assert there.scores and back.scores and there.scores.ks == back.scores.ks
    assert there.scores.mean_shift == pytest.approx(-back.scores.mean_shift)
    assert (there.pairs.n_new, there.queries.n_vanished) == (
        back.pairs.n_vanished,
        back.queries.n_new,
    )
    assert diff(first, second) == there  # to the last bit


@pytest.mark.parametrize("dropped", [("doc_id",), ("query_id",), ("query_id", "doc_id")])
def test_texts_name_what_has_no_id(tmp_path: Path, dropped: tuple[str, ...]) -> None:
    """In OLD alone, in NEW alone, in both; documents are their numbers here."""

    def named(rows: list[dict[str, Any]], drop: bool) -> list[dict[str, Any]]:
        rows = [{**row, "document": f"{row['document']}.{ord(row['doc_id'][1])}"} for row in rows]
        return [{k: v for k, v in row.items() if not (drop and k in dropped)} for row in rows]

    wanted: set[str] = set()
    for n, (old, new) in enumerate([(True, False), (False, True), (True, True)]):
        rows = named(OLD, old), named(OLD[::-1], new)
        sides = [
            output(
                each,
                tmp_path / f"{n}{side}",
                keep_cols=tuple(name for name in each[0]),
                cluster=False,
            )
            for side, each in enumerate(rows)
        ]
        found = diff(*sides)
        kinds = found.keys.model_dump()
        assert kinds["query"] == ("text" if "query_id" in dropped else "id")
        assert kinds["document"] == ("text" if "doc_id" in dropped else "id")
        assert (found.pairs.n_common, found.pairs.n_new, found.pairs.n_vanished) == (6, 0, 0)
        wanted.add(str(found.rbo))
    assert len(wanted) == 1


def test_texts_are_shown_shortened_where_they_were_kept(tmp_path: Path) -> None:
    def long(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**row, "query": row["query"] + "x" * 300} for row in rows]

    options = {"keep_cols": ("query_id", "doc_id", "document", "query")}
    old = output(long(OLD), tmp_path / "old", **options)
    [changed] = diff(old, output(long(NEW), tmp_path / "new", **options)).most_changed
    assert changed.query == "a" + "x" * 198 + "…"
    assert [each.document for each in changed.after] == ["3", "2", "1"]


def test_numbers_are_ids_whatever_their_width_and_are_no_texts(tmp_path: Path) -> None:
    def numbered(kind: pa.DataType, name: str) -> Output:
        path = write(OLD, tmp_path / name / "numbered.parquet")
        table = pq.read_table(path)
        codes = pa.array(range(table.num_rows)).cast(kind)
        at = table.column_names.index("doc_id")
        pq.write_table(table.set_column(at, "doc_id", codes), path)
        return output(OLD, tmp_path / name, input_uri=str(path))

    narrow, wide = numbered(pa.int32(), "narrow"), numbered(pa.uint64(), "wide")
    text = numbered(pa.string(), "text")
    found = diff(narrow, wide)
    assert (found.pairs.n_common, found.pairs.n_new) == (6, 0)
    with pytest.raises(InputError, match=r"text/out: column 'doc_id' is string, but 'doc_id' of"):
        diff(narrow, text)


def test_lists_are_compared_with_pairs(tmp_path: Path) -> None:
    plain, new = both(tmp_path / "plain")
    job = planned(OLD, tmp_path / "lists", shard_pairs=2)
    columns = job.plan.columns.model_copy(update={"candidates": ("doc_id", "document")})
    plan = job.plan.model_copy(update={"columns": columns})
    lists = finished(type(job)(job.record, plan))
    assert "candidates" in pq.read_schema(lists.part_uri(0)).names
    assert without(diff(lists, new), "old") == without(diff(plain, new), "old")
    assert without(diff(new, lists), "new") == without(diff(new, plain), "new")


def test_of_a_document_named_twice_the_better_place_counts_and_no_name_has_none(
    tmp_path: Path,
) -> None:
    docs = ["a1", "a2", "a1", None, "a3"]  # of the ranks 1 to 5
    rows = [
        {"query_id": "a", "doc_id": doc, "query": "a", "document": str(9 - n)}
        for n, doc in enumerate(docs)
    ]
    twice = output(rows, tmp_path / "twice", duplicates="keep")
    once = output(
        candidates("a", ["a1", "a2", "a3"], ["a1", "a2", "a3"]), tmp_path / "once", top_k=9
    )
    found = diff(twice, once)
    assert (found.old.n_rows, found.old.n_pairs, found.pairs.n_common) == (5, 3, 3)
    assert found.rbo and found.rbo.mean == 1
    assert found.scores and found.scores.mean_before == pytest.approx((9 + 8 + 5) / 3)


def test_ndcg_is_compared_where_there_are_judgments(tmp_path: Path) -> None:
    old, new = both(tmp_path)
    [at_1, at_10] = diff(old, new, ks=(10, 1), qrels={"a": {"a2": 1}, "b": {"b1": 1}}).ndcg
    assert (at_1.measure, at_1.before, at_1.after) == ("nDCG@1", 1, 0.5)
    assert (at_10.measure, at_10.n_worse, at_10.n_equal) == ("nDCG@10", 1, 1)
    with pytest.raises(InputError, match="none of the 1 queries that have relevant documents"):
        diff(old, new, qrels={"other": {"a2": 1}})


def test_ndcg_is_no_deeper_than_the_shorter_of_two_outputs(tmp_path: Path) -> None:
    rows = candidates("a", ["a1", "a2", "a3"], ["a1", "a3", "a2"])
    short, whole = output(rows, tmp_path / "short", top_k=2), output(rows, tmp_path / "whole")
    judged = {"a": {"a2": 1}}
    for sides in ((short, whole), (whole, short)):
        found = diff(*sides, ks=(1, 3), qrels=judged, gates=[parse("ndcg@3<-0.1")])
        assert [(each.measure, each.before, each.after) for each in found.ndcg] == [
            *(("nDCG@1", 0, 0), ("nDCG@2", 0, 0)),
        ]
        assert found.gate and found.gate.checks[0].value is None and not found.gate.passed
        console = Console(width=200)
        with console.capture() as shown:
            show_drift(found, console)
        assert "nDCG@3: one side has no more than 2 rows of a query" in shown.get()
    [deep] = diff(short, short, ks=(3,), qrels=judged).ndcg
    assert deep.measure == "nDCG@3"


def test_nothing_in_common_has_no_figures_and_fails_gates(tmp_path: Path) -> None:
    old = output(candidates("a", ["a1"], ["a1"]), tmp_path / "old")
    new = output(candidates("b", ["a1"], ["a1"]), tmp_path / "new")
    gates = [parse(text) for text in ("churn@10>0.9", "rbo<0", "ks>1", "new>0.5", "vanished<1")]
    found = diff(old, new, gates=gates)
    assert (found.scores, found.rbo, found.churn) == (None, None, ())
    assert found.gate and not found.gate.passed
    assert [each.failed for each in found.gate.checks] == [True, True, True, True, False]
    assert "rbo<0: there is nothing to measure it on; " in found.gate.message
    assert "new>0.5: it is 1" in found.gate.message


def refusals(tmp_path: Path) -> Iterator[tuple[Output, Output, dict[str, Any], str]]:
    old, new = both(tmp_path)
    yield old, new, {"ks": (0,)}, "churn at 0: a place is at least 1"
    yield old, new, {"gates": [parse("ndcg@10<-0.1")]}, "needs judgments: give --qrels"
    texts = output(OLD, tmp_path / "texts", keep_cols=("query_id", "document"))
    yield (
        old,
        texts,
        {},
        "no common key for a document: it has text in 'document', .* has id in 'doc",
    )
    nothing = output(OLD, tmp_path / "nothing", keep_cols=("doc_id",))
    yield (
        nothing,
        new,
        {},
        "no common key for a query: it has id in 'query_id', .* has neither id nor text",
    )
    open_again = output(OLD, tmp_path / "open")
    cleanup.reopen(open_again)
    yield old, open_again, {}, "open/out: the job's state is 'finalizing'; it can be read once it"
    lost = output(OLD, tmp_path / "lost")
    Path(lost.part_uri(0)).unlink()
    yield old, lost, {}, "part-00000.parquet was removed from"


def test_what_cannot_be_compared_is_refused_in_one_line(tmp_path: Path) -> None:
    for old, new, options, message in refusals(tmp_path):
        with pytest.raises(InputError, match=message) as raised:
            diff(old, new, **options)
        assert "\n" not in str(raised.value)
    old, _ = both(tmp_path / "again")
    with pytest.raises(JobUnknown, match="no job was submitted to this folder"):
        diff(old, Output(str(tmp_path / "nowhere")))


def test_a_scratch_folder_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKMILL_SCRATCH", str(tmp_path / "no folder"))
    settings.cache_clear()
    try:
        with pytest.raises(StorageRefused, match=r"cannot compare the outputs in .*no folder: No"):
            diff(*both(tmp_path))
    finally:
        settings.cache_clear()
