"""Each query's own prompt reaches the model in every layout; a missing one is the job's or none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from producer.estimates.estimate import estimate
from producer.inputs.source import read_source
from producer.jobs.check import check
from producer.jobs.plan import make_plan
from producer.prepare.prepare import prepare
from rankmill.contract.job import JobOptions, JobSpec
from rankmill.errors import InputError
from rankmill.output.output import Job
from rankmill.tables.pair_hash import pair_hashes
from tests.support.inputs import read_output, read_rejected
from tests.support.models.checkpoints import BUILDERS
from tests.support.prepared import write_lines
from worker import models
from worker.shard.run import run_shard
from worker.shard.score import ShardWork

pytestmark = pytest.mark.slow

Row = dict[str, Any]
QUERIES: list[Row] = [
    {"query_id": "q0", "query": "search engine", "ask": "Find code: "},
    {"query_id": "q1", "query": "search engine", "ask": "Find prose: "},
    {"query_id": "q2", "query": "search engine", "ask": None},
    {"query_id": "q3", "query": "search engine", "ask": " "},
]
DOCUMENTS = [{"doc_id": "d0", "document": "a fast engine"}, {"doc_id": "d1", "document": "a tree"}]


def pair_rows(queries: list[Row]) -> list[Row]:
    return [query | document for query in queries for document in DOCUMENTS]


def as_pairs(folder: Path, queries: list[Row]) -> Row:
    table = pa.Table.from_pylist(pair_rows(queries))
    pq.write_table(table, folder / "pairs.parquet")
    return {"input_uri": str(folder / "pairs.parquet")}


def as_json_pairs(folder: Path, queries: list[Row]) -> Row:
    path = write_lines(folder / "pairs.jsonl", map(json.dumps, pair_rows(queries)))
    return {"input_uri": str(path)}


def as_lists(folder: Path, queries: list[Row]) -> Row:
    candidates = [{"id": each["doc_id"], "text": each["document"]} for each in DOCUMENTS]
    table = pa.Table.from_pylist([query | {"candidates": candidates} for query in queries])
    pq.write_table(table, folder / "lists.parquet")
    return {"input_uri": str(folder / "lists.parquet"), "layout": "lists", "explode": True}


def as_run(folder: Path, queries: list[Row]) -> Row:
    rows = pair_rows(queries)
    run = (f"{each['query_id']} Q0 {each['doc_id']} 1 1 tag" for each in rows)
    texts = ({"_id": each["query_id"], "text": each["query"], **each} for each in queries)
    corpus = ({"_id": each["doc_id"], "text": each["document"]} for each in DOCUMENTS)
    return {
        "input_uri": str(write_lines(folder / "a.run", run)),
        "queries": str(write_lines(folder / "queries.jsonl", map(json.dumps, texts))),
        "corpus": str(write_lines(folder / "corpus.jsonl", map(json.dumps, corpus))),
        "layout": "run",
    }


LAYOUTS = [as_json_pairs, as_lists, as_run]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    return str(BUILDERS["bert"](tmp_path_factory.mktemp("model") / "bert"))


def run(folder: Path, options: Row) -> dict[tuple[str, str], float]:
    spec = JobSpec(output_uri=str(folder / "out"), precision="fp32", max_reject_rate=1, **options)
    checked = check(spec)
    plan = checked.plan
    if plan is None:
        target = str(folder / "prepared")
        columns = prepare(spec, checked.files, target, folder / "scratch", lambda *_: None)
        plan = make_plan(checked.record.job_id, spec, read_source([target]), columns)
    job = Job(checked.record, plan)
    work = ShardWork(models.load(spec), "test", 8)
    for n in range(plan.n_shards):
        run_shard(job, job.shard(n), work)
    return {(row["query_id"], row["doc_id"]): row["logit"] for row in read_output(folder / "out")}


@pytest.mark.parametrize(
    ("layout", "given"),
    [(layout, None if layout is as_json_pairs else "Find anything: ") for layout in LAYOUTS],
)
def test_a_prompt_is_what_the_model_reads_before_its_query(
    tmp_path: Path, model: str, layout: Callable[..., Row], given: str | None
) -> None:
    for name in ("prompted", "written"):
        (tmp_path / name).mkdir()
    options = layout(tmp_path / "prompted", QUERIES)
    options |= {"model_id": model, "prompt_col": "ask", "prompt": given}
    found = run(tmp_path / "prompted", options)
    written = []
    for query in QUERIES:
        prompt = query["ask"] if (query["ask"] or "").strip() else given
        written.append(query | {"query": (prompt or "") + query["query"]})
    options = as_pairs(tmp_path / "written", written) | {"model_id": model}
    expected = run(tmp_path / "written", options)
    assert found == pytest.approx(expected, abs=1e-6)
    assert len({round(logit, 5) for logit in found.values()}) == 6


def test_a_row_without_the_prompt_that_its_template_shows_is_rejected(
    tmp_path: Path, model: str
) -> None:
    template = "{prompt} query: {query} document: {document}"
    options = as_pairs(tmp_path, QUERIES) | {"model_id": model, "prompt_col": "ask"}
    options["input_template"] = template
    found = run(tmp_path, options)
    assert {query for query, _ in found} == {"q0", "q1"}
    reasons = [row["reason"] for row in read_rejected(tmp_path / "out")]
    assert sorted(reasons) == ["prompt is empty"] * 2 + ["prompt is null"] * 2
    counted = estimate(JobOptions(**options), device="cpu", calibrate=False)
    assert counted.rejected_by_reason == {"prompt is empty": 2, "prompt is null": 2}


@pytest.mark.parametrize("more", [{}, {"long_docs": "max-passage", "passage_tokens": 8}])
def test_a_prompt_that_is_too_long_for_its_template_is_rejected(
    tmp_path: Path, model: str, more: Row
) -> None:
    queries = [QUERIES[0] | {"ask": "word " * 60}, QUERIES[1]]
    options = as_pairs(tmp_path, queries) | {"model_id": model, "prompt_col": "ask"} | more
    options |= {"input_template": "{prompt} query: {query} document: {document}", "max_length": 40}
    assert {query for query, _ in run(tmp_path, options)} == {"q1"}
    reason = (
        "the model refuses it: its prompt leaves no room for text in 40 tokens; shorten it, or set "
        "--max-length higher"
    )
    assert [row["reason"] for row in read_rejected(tmp_path / "out")] == [reason] * 2
    counted = estimate(JobOptions(**options), device="cpu", calibrate=False)
    assert counted.rejected_by_reason == {reason: 2}


def test_a_query_that_is_too_long_for_its_chat_template_is_rejected(tmp_path: Path) -> None:
    model = BUILDERS["qwen3"](tmp_path / "qwen3")
    queries = [QUERIES[0] | {"query": "word " * 60}, QUERIES[1]]
    template = "{{ messages[-1].content }} answers {{ messages[-2].content }}"
    options = as_pairs(tmp_path, queries) | {"model_id": str(model), "max_length": 40}
    options |= {"chat_template": template, "yes_token": "yes"}
    assert {query for query, _ in run(tmp_path, options)} == {"q1"}
    reason = (
        "the model refuses it: its query leaves no room for a document in 40 tokens; shorten it, "
        "or set --max-length higher"
    )
    assert [row["reason"] for row in read_rejected(tmp_path / "out")] == [reason] * 2


@pytest.mark.parametrize(
    ("layout", "column", "message"),
    [(as_pairs, "gone", "'gone'"), (as_lists, "n", "not text"), (as_run, "gone", "'gone'")],
)
def test_a_wrong_column_is_one_line(
    tmp_path: Path, layout: Callable[..., Row], column: str, message: str
) -> None:
    queries = [query | {"n": 1.5} for query in QUERIES]
    options = layout(tmp_path, queries) | {"model_id": "demo", "prompt_col": column}
    with pytest.raises(InputError, match=message) as caught:
        check(JobSpec(output_uri=str(tmp_path / "out"), **options))
    assert "\n" not in str(caught.value)


def test_pairs_with_other_prompts_have_other_hashes() -> None:
    def hashed(*rows: tuple[str | None, str, str]) -> list[bytes]:
        prompts, queries, documents = (
            pa.chunked_array([list(each)], pa.string()) for each in zip(*rows, strict=True)
        )
        return [each.as_py() for each in pair_hashes(queries, documents, prompts)]

    rows = [("p", "q", "d"), ("pq", "", "d"), (None, "q", "d"), ("", "q", "d"), ("p", "q", "e")]
    found = hashed(*rows)
    assert found[2] == found[3] and len(set(found)) == 4
    query, document = (pa.chunked_array([[text]], pa.string()) for text in "qd")
    assert pair_hashes(query, document)[0].as_py() not in found
