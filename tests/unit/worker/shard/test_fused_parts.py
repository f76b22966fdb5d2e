"""Parts with both stages fused: the same for any shards, cut by the fused rank, also as lists."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from producer.jobs.check import check
from rankmill.contract.job import JobSpec
from rankmill.errors import InputError
from rankmill.tables.fusion import ranks_in_groups, reciprocal_ranks, weighted
from tests.support.inputs import control, pairs, read_output, read_rejected, write
from tests.support.shards import job_over, run_all
from worker.trec import write_trec_run

N_QUERIES, N_CANDIDATES = 6, 7


def rows_with(column: str = "score") -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    scores = (rng.integers(0, 12, N_QUERIES * N_CANDIDATES) / 2).tolist()
    rows = [
        {**row, column: score}
        for row, score in zip(pairs(N_QUERIES, N_CANDIDATES), scores, strict=True)
    ]
    rows[3][column] = None
    return rows


def fused(rows: list[dict[str, Any]], folder: Path, **options: Any) -> list[dict[str, Any]]:
    run_all(job_over(write(rows, folder / "in.parquet", row_group_size=5), folder, **options))
    return read_output(folder / "out")


def expected(rows: list[dict[str, Any]], column: str, **options: Any) -> dict[str, tuple[Any, Any]]:
    """Return fused score and rank by document, from rows with a logit, in the input's order."""
    groups = np.unique([row["query_id"] for row in rows], return_inverse=True)[1]
    logits = np.array([row["logit"] for row in rows], np.float32)
    first = np.array([math.nan if row[column] is None else row[column] for row in rows])
    if options["fuse"] == "rrf":
        scores = reciprocal_ranks(groups, logits, first, options.get("fuse_k", 60))
    else:
        scores = weighted(groups, logits, first, options.get("fuse_weight", 0.5))
    ranks = ranks_in_groups(groups, scores)
    return {
        row["doc_id"]: (score, rank)
        for row, score, rank in zip(rows, scores.tolist(), ranks.tolist(), strict=True)
    }


@pytest.mark.parametrize("shard_pairs", [4, 100])
@pytest.mark.parametrize(
    "options",
    [
        {"fuse": "rrf", "fuse_k": 3},
        {"fuse": "weighted", "fuse_weight": 0.3},
        {"fuse": "weighted", "fuse_col": "bm25", "keep_cols": ("query_id", "doc_id")},
    ],
)
def test_parts_have_the_fused_score_and_are_cut_by_its_rank(
    tmp_path: Path, shard_pairs: int, options: dict[str, Any]
) -> None:
    column = options.get("fuse_col", "score")
    rows = rows_with(column)
    plain = {row["doc_id"]: row for row in fused(rows, tmp_path / "plain")}
    whole = [{**row, "logit": plain[row["doc_id"]]["logit"]} for row in rows]
    wanted = expected(whole, column, **options)
    found = fused(rows, tmp_path / "all", shard_pairs=shard_pairs, **options)
    assert len(found) == len(rows)
    for row in found:
        assert (row["fused_score"], row["fused_rank"]) == wanted[row["doc_id"]]
        assert row["rank"] == plain[row["doc_id"]]["rank"]
    best = fused(rows, tmp_path / "best", shard_pairs=shard_pairs, top_k=3, **options)
    assert [row["fused_rank"] for row in best] == [1, 2, 3] * N_QUERIES
    assert best == [row for row in found if row["fused_rank"] <= 3]


def test_without_scores_rrf_takes_the_order_of_the_input(tmp_path: Path) -> None:
    rows = pairs(2, 4)
    for row in fused(rows, tmp_path, fuse="rrf"):
        place = int(row["doc_id"].partition("-")[2]) + 1
        assert row["fused_score"] == 1 / (60 + row["rank"]) + 1 / (60 + place)


def test_the_run_has_the_fused_order(tmp_path: Path) -> None:
    job = job_over(write(rows_with(), tmp_path / "in.parquet"), tmp_path, fuse="rrf", trec_run=True)
    run_all(job)
    write_trec_run(job)
    lines = (control(tmp_path / "out") / "run.trec").read_text().splitlines()
    found = [(doc, int(rank), float(score)) for _, _, doc, rank, score, _ in map(str.split, lines)]
    assert found == [
        (row["doc_id"], row["fused_rank"], row["fused_score"])
        for row in read_output(tmp_path / "out")
    ]


def test_an_infinite_score_is_rejected_and_nan_is_none(tmp_path: Path) -> None:
    rows = rows_with()
    rows[0]["score"], rows[1]["score"] = math.inf, math.nan
    found = {row["doc_id"]: row for row in fused(rows, tmp_path, fuse="rrf", max_reject_rate=1)}
    [lost] = read_rejected(tmp_path / "out")
    assert (lost["row"], lost["reason"]) == (0, "column score is not finite")
    without = found[rows[1]["doc_id"]]
    assert without["fused_score"] == 1 / (60 + without["rank"])


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"fuse": "weighted"}, "--fuse weighted needs the first stage's scores.*--fuse-col"),
        ({"fuse": "rrf", "fuse_col": "bm25"}, "column 'bm25' is missing.*--fuse-col names another"),
        ({"fuse": "rrf", "fuse_col": "doc_id"}, "'doc_id' is string, not a number"),
        ({"fuse": "rrf"}, "--fuse rrf: column 'score' is string, not a number.*rename it"),
    ],
)
def test_scores_that_cannot_be_fused_are_refused(
    tmp_path: Path, options: dict[str, Any], why: str
) -> None:
    source = write([{**row, "score": "1.5"} for row in pairs(1, 2)], tmp_path / "in.parquet")
    with pytest.raises(InputError, match=why):
        check(
            JobSpec(
                input_uri=str(source), output_uri=str(tmp_path / "out"), model_id="null", **options
            )
        )


@pytest.mark.parametrize(
    "options", [{"fuse_col": "a"}, {"fuse": "weighted", "fuse_k": 5}, {"fuse_weight": 0.2}]
)
def test_an_option_without_effect_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="needs --fuse"):
        JobSpec(input_uri="in", output_uri="out", **options)


def test_a_constant_that_no_rank_could_be_added_to_is_refused() -> None:
    with pytest.raises(ValueError, match="less than or equal to 1000000"):
        JobSpec(input_uri="in", output_uri="out", fuse="rrf", fuse_k=2**70)
