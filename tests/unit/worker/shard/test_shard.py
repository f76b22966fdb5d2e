"""A shard from rows to part, without Celery or Redis, against `CrossEncoder.predict`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from producer.jobs.check import plan_job
from rankmill.errors import ClaimLost, JobFailed, StorageUnavailable
from tests.support.inputs import (
    control,
    everything_under,
    pairs,
    part_bytes,
    read_output,
    read_rejected,
)
from tests.support.shards import planned, run_all
from worker import models
from worker.engine.scorer import PairTooLargeError, PairWindow, Scorer, WindowScores


def test_scores_and_ranks_equal_the_reference(tmp_path: Path, model_folder: Path) -> None:
    from sentence_transformers import CrossEncoder

    rows = pairs(5, 6)
    run_all(planned(rows, tmp_path, model_folder, shard_pairs=7))
    result = read_output(tmp_path / "out")
    texts = {row["doc_id"]: (row["query"], row["document"]) for row in rows}
    reference = CrossEncoder(str(model_folder), device="cpu")
    wanted = reference.predict([texts[row["doc_id"]] for row in result])
    assert np.abs(wanted - [row["score"] for row in result]).max() <= 1e-5
    logits = reference.predict(
        [texts[row["doc_id"]] for row in result], activation_fn=torch.nn.Identity()
    )
    assert np.abs(logits - [row["logit"] for row in result]).max() <= 1e-5
    for query_id in {row["query_id"] for row in rows}:
        group = [row for row in result if row["query_id"] == query_id]
        assert [row["rank"] for row in group] == list(range(1, 7))
        assert sorted(group, key=lambda row: -row["logit"]) == group


def test_parts_have_the_promised_columns(tmp_path: Path, model_folder: Path) -> None:
    rows = [{**row, "score": 1.5, "extra": [{"a": 1}]} for row in pairs(2, 3)]
    run_all(planned(rows, tmp_path, model_folder))
    schema = pq.read_schema(tmp_path / "out" / "part-00000.parquet")
    assert [f"{field.name} {field.type}" for field in schema] == [
        "query_id string",
        "doc_id string",
        "input_score double",
        "extra list<element: struct<a: int64>>",
        "logit float",
        "score float",
        "rank int32",
        "n_tokens int32",
        "truncated bool",
    ]


def test_parts_do_not_depend_on_shards_windows_or_order_of_running(
    tmp_path: Path, model_folder: Path
) -> None:
    rows = pairs(9, 5)
    results = []
    for name, shard_pairs, window in (("a", 100, 64), ("b", 6, 4)):
        job = planned(rows, tmp_path / name, model_folder, shard_pairs=shard_pairs)
        run_all(job, window)
        results.append(read_output(tmp_path / name / "out"))
        before = part_bytes(tmp_path / name / "out")
        run_all(job, window)
        assert part_bytes(tmp_path / name / "out") == before
    near = [(a["logit"], b["logit"]) for a, b in zip(*results, strict=True)]
    assert near and all(a == b for a, b in near)  # to the last bit
    assert [row["doc_id"] for row in results[0]] == [row["doc_id"] for row in results[1]]


def test_top_k_keeps_the_best_and_counts_the_rest_as_scored(
    tmp_path: Path, model_folder: Path
) -> None:
    (report,) = run_all(planned(pairs(3, 6), tmp_path, model_folder, top_k=2))
    result = read_output(tmp_path / "out")
    assert [row["rank"] for row in result] == [1, 2] * 3
    assert (report.n_rows, report.n_scored, report.n_written) == (18, 18, 6)


def test_bad_rows_are_rejected_with_all_they_have(tmp_path: Path, model_folder: Path) -> None:
    rows = pairs(3, 4)
    rows[1]["document"] = None
    rows[5]["document"] = " \n\t "
    rows[6]["query"] = ""
    rows[11]["query_id"] = None
    (report,) = run_all(planned(rows, tmp_path, model_folder))
    rejected = read_rejected(tmp_path / "out")
    assert [(row["row"], row["reason"]) for row in rejected] == [
        (1, "document is null"),
        (5, "document is empty"),
        (6, "query is empty"),
        (11, "query_id is null"),
    ]
    assert rejected[1]["doc_id"] == rows[5]["doc_id"] and rejected[1]["document"] == " \n\t "
    assert rejected[0]["file"].endswith("in.parquet")
    assert (report.n_scored, report.n_rejected) == (8, 4)
    scored = {row["doc_id"] for row in read_output(tmp_path / "out")}
    assert scored == {row["doc_id"] for n, row in enumerate(rows) if n not in (1, 5, 6, 11)}


def test_input_columns_named_like_reject_columns_keep_their_names(tmp_path: Path) -> None:
    rows = [{**row, "file": 1, "reject_file": 2, "row": 3} for row in pairs(1, 2)]
    rows[1]["document"] = None
    run_all(planned(rows, tmp_path, Path("null")))
    [rejected] = read_rejected(tmp_path / "out")
    assert list(rejected)[:3] == ["reject_reject_file", "reject_row", "reason"]
    assert [rejected[name] for name in ("file", "reject_file", "row", "reject_row")] == [1, 2, 3, 1]


def test_bytes_that_are_not_text_and_rows_without_a_key_are_rejected(
    tmp_path: Path, model_folder: Path
) -> None:
    rows = [{**row, "document": row["document"].encode()} for row in pairs(3, 4)]
    rows[2]["document"] = b"caf\xe9"
    for row in (1, 5, 9):
        rows[row]["query_id"] = None
    job = planned(pairs(3, 4), tmp_path, model_folder, shard_pairs=6)
    table = pa.Table.from_pylist(rows)
    bad = pa.StringArray.from_buffers(12, *table["document"].chunk(0).buffers()[1:])
    place = table.column_names.index("document")
    pq.write_table(table.set_column(place, "document", bad), job.spec.input_uri)
    run_all(plan_job(job.spec))
    rejected = [(row["row"], row["reason"]) for row in read_rejected_raw(tmp_path / "out")]
    assert rejected == [
        (1, "query_id is null"),
        (2, "document is not UTF-8"),
        (5, "query_id is null"),
        (9, "query_id is null"),
    ]
    assert [row["rank"] for row in read_output(tmp_path / "out")] == [1, 2, 1, 2, 3, 1, 2, 3]


def read_rejected_raw(output: Path) -> list[dict[str, Any]]:
    """Return row and reason alone: the texts may not be UTF-8."""
    files = sorted((control(output) / "rejected").glob("*.parquet"))
    return [row for f in files for row in pq.read_table(f, columns=["row", "reason"]).to_pylist()]


def test_string_views_and_fields_that_differ_in_nullability_are_read(
    tmp_path: Path, model_folder: Path
) -> None:
    job = planned(pairs(2, 3), tmp_path, model_folder)
    table = pq.read_table(job.spec.input_uri)
    viewed = pa.schema([pa.field(name, pa.string_view()) for name in table.column_names])
    strict = pa.schema([field.with_nullable(False) for field in viewed])
    folder = tmp_path / "files"
    folder.mkdir()
    pq.write_table(table.slice(0, 3).cast(viewed), folder / "0.parquet")
    pq.write_table(table.slice(3).cast(strict), folder / "1.parquet")
    spec = job.spec.model_copy(update={"input_uri": str(folder)})
    run_all(plan_job(spec))
    assert len(read_output(tmp_path / "out")) == 6


def test_a_shard_of_bad_rows_only_and_an_empty_one_have_parts(
    tmp_path: Path, model_folder: Path
) -> None:
    rows = [{**row, "document": ""} for row in pairs(1, 3)]
    (report,) = run_all(planned(rows, tmp_path / "bad", model_folder))
    assert (report.n_scored, report.n_rejected, report.n_query_groups) == (0, 3, 1)
    empty = planned(rows, tmp_path / "empty", model_folder)
    pq.write_table(pq.read_table(tmp_path / "bad/in.parquet").slice(0, 0), empty.spec.input_uri)
    (report,) = run_all(plan_job(empty.spec))
    assert report.n_rows == 0
    schemas = [pq.read_schema(tmp_path / n / "out/part-00000.parquet") for n in ("bad", "empty")]
    assert schemas[0] == schemas[1]


def test_nothing_is_published_after_the_claim_is_lost(tmp_path: Path, model_folder: Path) -> None:
    def lost() -> None:
        raise ClaimLost("gone")

    job = planned(pairs(2, 3), tmp_path, model_folder)
    with pytest.raises(ClaimLost):
        run_all(job, guard=lost)
    assert not [name for name in everything_under(tmp_path) if name.startswith("out")]


def test_a_shard_whose_other_files_fail_has_no_report(tmp_path: Path) -> None:
    job = planned(pairs(4, 3), tmp_path, Path("null"), shard_pairs=6)
    in_the_way = control(tmp_path / "out") / "queries"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.touch()
    with pytest.raises(StorageUnavailable, match=r"cannot write .*/queries/00000"):
        run_all(job)
    assert job.output.reported_shards() == set()
    in_the_way.unlink()
    assert len(run_all(job)) == 2


class _Picky:
    """A scorer that breaks at one document, as a full device or a tokenizer does."""

    def __init__(self, scorer: Scorer, text: str, error: Callable[[int], Exception]) -> None:
        self._scorer = scorer
        self._text = text
        self._error = error
        self.stats = scorer.stats
        self.have_weights_changed = scorer.have_weights_changed

    def score(self, windows: Iterable[PairWindow]) -> Iterator[WindowScores]:
        for window in windows:
            if self._text in window.documents:
                raise self._error(window.documents.index(self._text))
            yield from self._scorer.score([window])


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (lambda at: PairTooLargeError(at, 9), "too long for the device's memory"),
        (
            lambda at: ValueError("bad text"),
            "the model refuses it: its tokenizer or template fails with ValueError; the worker's "
            "log has the message",
        ),
        (lambda at: TimeoutError("it does not end"), "the model refuses it: it does not end"),
    ],
)
def test_only_the_row_that_breaks_scoring_is_rejected(
    tmp_path: Path, model_folder: Path, error: Callable[[int], Exception], reason: str
) -> None:
    rows = pairs(3, 6)
    rows[8]["document"] = rows[10]["document"] = "endless"
    job = planned(rows, tmp_path, model_folder)
    model = models.load(job.spec)
    # It has as much of a scorer as a shard needs.
    picky = replace(model, scorer=_Picky(model.scorer, "endless", error))
    (report,) = run_all(job, 4, model=picky)
    assert report.rejects_by_reason == {reason: 2}
    assert [row["row"] for row in read_rejected(tmp_path / "out")] == [8, 10]
    assert report.n_scored == 16


def test_weights_that_were_written_over_meanwhile_fail_the_job(
    tmp_path: Path, model_folder: Path
) -> None:
    folder = shutil.copytree(model_folder, tmp_path / "model")
    job = planned(pairs(3, 6), tmp_path, folder)
    model = models.load(job.spec)
    path = folder / "model.safetensors"
    content = path.read_bytes()
    with path.open("r+b") as file:
        file.write(content)
    with pytest.raises(JobFailed, match="were written to while it was in use"):
        run_all(job, model=model)
    assert not list((tmp_path / "out").glob("part-*"))


def test_a_reduced_precision_is_compared_with_fp32(tmp_path: Path, model_folder: Path) -> None:
    job = planned(pairs(10, 6), tmp_path, model_folder, precision="bf16", shard_pairs=30)
    first, second = run_all(job)
    assert first.agreement is not None and second.agreement is None
    assert (first.agreement.n_pairs, first.agreement.precision) == (20, "bf16")
    assert 0 < first.agreement.max_difference < 0.5
    assert first.agreement.kendall_tau > 0.5


def test_the_comparison_with_fp32_takes_the_scores_of_the_part(
    tmp_path: Path, model_folder: Path
) -> None:
    rows = pairs(10, 6)
    rows[4]["document"] = None  # is rejected, and not compared
    job = planned(rows, tmp_path, model_folder, precision="bf16")
    model = models.load(job.spec)
    (report,) = run_all(job, 7, model=model)
    good = [row for row in rows[:20] if row["document"] is not None]
    window = PairWindow([row["query"] for row in good], [row["document"] for row in good])
    assert isinstance(model.scorer, Scorer) and report.agreement is not None
    expected = asdict(model.scorer.agreement(window))  # scores in bf16 again
    assert report.agreement.model_dump(include=set(expected)) == expected
    assert expected["n_pairs"] == 19
