"""A shard whose documents are scored in passages: its columns, its counts and its rejects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from rankmill.contract.plan import PASSAGE_COLUMNS
from rankmill.errors import InputError
from tests.support.inputs import pairs, part_bytes, read_output, read_rejected
from tests.support.shards import planned, run_all
from worker import models
from worker.engine.passages.passage_scorer import NO_ROOM
from worker.engine.scorer import PairWindow, Scorer

PASSAGES = {"long_docs": "max-passage", "max_length": 32}


def long_pairs() -> list[dict[str, Any]]:
    rows = pairs(4, 3)
    for at, row in enumerate(rows):
        row["document"] = " ".join([f"{row['document']}."] * (1 + at % 5))
    return rows


def test_parts_have_the_best_passage_of_each_document(tmp_path: Path, model_folder: Path) -> None:
    rows = [{**row, "n_passages": 7.5} for row in long_pairs()]
    run_all(planned(rows, tmp_path, model_folder, keep_cols=("doc_id", "n_passages"), **PASSAGES))
    schema = pq.read_schema(tmp_path / "out" / "part-00000.parquet")
    assert schema.names[:2] == ["doc_id", "input_n_passages"]
    assert [f"{field.name} {field.type}" for field in list(schema)[-3:]] == [
        f"{name} int32" for name in PASSAGE_COLUMNS
    ]
    plain = Scorer.load(model_folder, precision="fp32", max_length=32)
    texts = {row["doc_id"]: row for row in rows}
    result = read_output(tmp_path / "out")
    assert max(row["n_passages"] for row in result) > 1
    for row in result:
        source = texts[row["doc_id"]]
        best = source["document"][row["best_passage_start"] : row["best_passage_end"]]
        [scores] = plain.score([PairWindow([source["query"]], [best])])
        assert row["logit"] == scores.logits[0] and not row["truncated"]
        if row["n_passages"] == 1:
            assert best == source["document"] and row["n_tokens"] == scores.n_tokens[0]
        else:
            assert row["n_tokens"] > 32 and best != source["document"]


@pytest.mark.parametrize("mode", ["max-passage", "first-and-last", "mean-top3"])
def test_parts_do_not_depend_on_shards_or_windows(
    tmp_path: Path, model_folder: Path, mode: str
) -> None:
    results, options = [], {**PASSAGES, "long_docs": mode, "passage_stride": 3}
    for name, shard_pairs, window in (("a", 100, 64), ("b", 3, 2)):
        job = planned(
            long_pairs(), tmp_path / name, model_folder, shard_pairs=shard_pairs, **options
        )
        run_all(job, window)
        results.append(read_output(tmp_path / name / "out"))
        before = part_bytes(tmp_path / name / "out")
        run_all(job, 2 * window)
        assert part_bytes(tmp_path / name / "out") == before
    assert results[0] == results[1]


def test_a_query_that_leaves_no_room_rejects_its_rows(tmp_path: Path, model_folder: Path) -> None:
    rows = long_pairs()
    rows[0]["query"] = rows[1]["query"] = rows[2]["query"] = "word " * 40
    job = planned(rows, tmp_path / "a", model_folder, max_reject_rate=1, **PASSAGES)
    (report,) = run_all(job)
    assert report.rejects_by_reason == {NO_ROOM: 3}
    assert [row["row"] for row in read_rejected(tmp_path / "a" / "out")] == [0, 1, 2]
    job = planned(rows, tmp_path / "b", model_folder, max_query_tokens=8, **PASSAGES)
    (report,) = run_all(job)
    cut = {row["doc_id"] for row in read_output(tmp_path / "b" / "out") if row["truncated"]}
    assert report.n_rejected == 0 and {row["doc_id"] for row in rows[:3]} <= cut


def test_a_bad_passage_rejects_its_row_with_the_reason(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = planned(long_pairs(), tmp_path, model_folder, max_reject_rate=1, **PASSAGES)
    model = models.load(job.spec)
    scorer: Any = model.scorer
    collect = scorer.scorer._runner.collect

    def broken(launched: Any) -> np.ndarray:
        found: np.ndarray = collect(launched)
        lengths = launched.window.lengths
        found[lengths == lengths.max()] = np.nan
        return found

    monkeypatch.setattr(scorer.scorer._runner, "collect", broken)
    (report,) = run_all(job, 64, model=model)
    assert set(report.rejects_by_reason) == {"score of a passage is not finite"}
    assert 0 < report.n_rejected < report.n_rows


def test_equal_rows_count_as_duplicates_and_passages_do_not(
    tmp_path: Path, model_folder: Path
) -> None:
    rows = long_pairs()
    rows[1]["document"] = rows[0]["document"] = "the same words again and again. " * 9
    (report,) = run_all(planned(rows, tmp_path, model_folder, **PASSAGES), 64)
    assert (report.n_duplicates, report.n_scored, report.n_truncated) == (1, len(rows), 0)
    assert report.lengths is not None and sum(report.lengths.counts) == len(rows)


def test_a_length_that_only_the_worker_can_check_is_refused(
    tmp_path: Path, model_folder: Path
) -> None:
    job = planned(long_pairs(), tmp_path, model_folder, **PASSAGES)
    spec = job.spec.model_copy(update={"passage_tokens": 32})
    with pytest.raises(InputError, match=r"^--passage-tokens 32: a pair has at most 32 tokens"):
        models.load(spec)


def test_the_titles_of_rows_are_repeated_before_their_passages(
    tmp_path: Path, model_folder: Path
) -> None:
    rows = long_pairs()
    for name, column in (("a", "title"), ("b", "heading")):
        titled = [{**row, column: "fast search"} for row in rows]
        keep = ("doc_id", "query", "document")
        run_all(planned(titled, tmp_path / name, model_folder, keep_cols=keep, **PASSAGES))
    plain = Scorer.load(model_folder, precision="fp32", max_length=32)
    repeated = 0
    for row in read_output(tmp_path / "a" / "out"):
        text = f"fast search {row['document']}"
        best = text[row["best_passage_start"] : row["best_passage_end"]]
        if row["best_passage_start"]:
            best, repeated = f"fast search {best}", repeated + 1
        [scores] = plain.score([PairWindow([row["query"]], [best])])
        assert row["logit"] == scores.logits[0]
    assert repeated
    untitled = read_output(tmp_path / "b" / "out")
    assert all(row["best_passage_end"] <= len(row["document"]) for row in untitled)


@pytest.mark.parametrize("options", [{}, PASSAGES])
def test_a_reduced_precision_is_compared_with_fp32_with_passages_and_without(
    tmp_path: Path, model_folder: Path, options: dict[str, Any]
) -> None:
    """A rejected row is left out of the comparison, whatever the record of a known score."""
    rows = long_pairs()
    rows[1]["document"] = None
    options = {"max_reject_rate": 1, "precision": "bf16", **options}
    (report,) = run_all(planned(rows, tmp_path, model_folder, **options))
    assert report.agreement is not None and report.no_agreement is None
    assert report.n_scored == 11 and report.agreement.n_pairs >= 11  # passages, if there are
    assert 0 < report.agreement.max_difference < 0.5
