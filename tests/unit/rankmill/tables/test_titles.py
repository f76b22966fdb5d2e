"""A title goes before its text in the same way in every layout, unless the job does not want it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.estimates.estimate import estimate
from producer.inputs.source import read_source
from producer.jobs.check import check
from producer.jobs.plan import make_plan
from producer.prepare.prepare import prepare
from producer.reuse.earlier import Earlier
from producer.reuse.known_scores import look_up
from rankmill.contract.job import JobOptions, JobSpec
from rankmill.contract.job_id import job_id_for
from rankmill.contract.plan import Plan
from rankmill.contract.results import Manifest
from rankmill.errors import InputError
from rankmill.output.output import Job
from rankmill.tables.titles import with_titles
from tests.support.inputs import read_output, read_rejected
from tests.support.prepared import write_lines
from worker import models
from worker.finalize import make_manifest
from worker.shard.run import run_shard
from worker.shard.score import ShardWork

pytestmark = pytest.mark.slow

QUERY = "development headers"
DOCUMENTS: list[dict[str, Any]] = [
    {"id": "d0", "title": "libfoo", "text": "The shared runtime."},
    {"id": "d1", "title": "", "text": " A text alone, with blanks around it. "},
    {"id": "d2", "title": None, "text": "Nothing before this one"},
    {"id": "d3", "title": " libbar-dev\t", "text": "\u00a0Headers\u2003"},
    {"id": "d4", "title": "a title alone", "text": None},
    {"id": "d5", "title": "  ", "text": None},
]


def joined(title: str | None, text: str | None) -> str:
    """As beir and mteb have it."""
    return ((title or "") + " " + (text or "")).strip()


def as_pairs(folder: Path, documents: list[dict[str, Any]]) -> dict[str, Any]:
    return {"input_uri": str(parquet(pair_rows(documents), folder / "pairs.parquet"))}


def as_json_pairs(folder: Path, documents: list[dict[str, Any]]) -> dict[str, Any]:
    lines = map(json.dumps, pair_rows(documents))
    return {"input_uri": str(write_lines(folder / "pairs.jsonl", lines))}


def as_scattered(folder: Path, documents: list[dict[str, Any]]) -> dict[str, Any]:
    return {**as_pairs(folder, documents), "cluster": True}


def as_lists(folder: Path, documents: list[dict[str, Any]]) -> dict[str, Any]:
    row = {"query_id": "q", "query": QUERY, "title": "of the query", "candidates": documents}
    path = parquet([row], folder / "lists.parquet")
    return {"input_uri": str(path), "layout": "lists", "explode": True}


def as_json_lists(folder: Path, documents: list[dict[str, Any]]) -> dict[str, Any]:
    row = {"query_id": "q", "query": QUERY, "candidates": documents}
    path = write_lines(folder / "lists.jsonl", [json.dumps(row)])
    return {"input_uri": str(path), "layout": "lists", "explode": True}


def as_run(folder: Path, documents: list[dict[str, Any]]) -> dict[str, Any]:
    run = (f"q Q0 {each['id']} 1 1 tag" for each in documents)
    corpus = (json.dumps({"_id": each["id"], **each}) for each in documents)
    return {
        "input_uri": str(write_lines(folder / "a.run", run)),
        "queries": str(write_lines(folder / "queries.tsv", [f"q\t{QUERY}"])),
        "corpus": str(write_lines(folder / "corpus.jsonl", corpus)),
        "layout": "run",
    }


LAYOUTS = [as_pairs, as_json_pairs, as_scattered, as_lists, as_json_lists, as_run]


def pair_rows(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"query_id": "q", "query": QUERY, "doc_id": each["id"], "document": each["text"], **others}
        for each in documents
        for others in [{k: v for k, v in each.items() if k not in ("id", "text")}]
    ]


def parquet(rows: list[dict[str, Any]], path: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def planned(spec: JobSpec, folder: Path) -> Job:
    """Plan a job, and prepare it as a worker does if it needs that."""
    checked = check(spec)
    if checked.plan is not None:
        return Job(checked.record, checked.plan)
    target = str(folder / "prepared")
    columns = prepare(spec, checked.files, target, folder / "scratch", lambda *_: None)
    plan = make_plan(checked.record.job_id, spec, read_source([target]), columns)
    return Job(checked.record, plan)


def run(folder: Path, options: dict[str, Any]) -> tuple[Job, Manifest]:
    values = {"output_uri": str(folder / "out"), "model_id": "null", "max_reject_rate": 1}
    job = planned(JobSpec(**{**values, **options}), folder)
    work = ShardWork(models.load(job.spec), "test", 8)
    for n in range(job.plan.n_shards):
        run_shard(job, job.shard(n), work)
    return job, make_manifest(job, list(job.output.reports(job.job_id)))


def scores(folder: Path) -> dict[str, float]:
    return {row.get("doc_id", row.get("id")): row["logit"] for row in read_output(folder / "out")}


@pytest.fixture
def wanted(tmp_path: Path) -> Callable[..., dict[str, float]]:
    """Return the scores of documents whose titles are already in their texts."""

    def of(*texts: str) -> dict[str, float]:
        documents = [{"id": f"d{n}", "text": text} for n, text in enumerate(texts)]
        run(tmp_path / "plain", as_pairs(made(tmp_path / "plain"), documents))
        return scores(tmp_path / "plain")

    return of


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


TEXTS = st.one_of(st.none(), st.text(" \t\u00a0\u3000aé\n", max_size=5))


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=6))
def test_the_join_is_that_of_beir(pairs: list[tuple[str | None, str | None]]) -> None:
    titles, texts = ([pair[at] for pair in pairs] for at in (0, 1))
    columns = (pa.chunked_array([each], pa.string()) for each in (titles, texts))
    found = with_titles(*columns).to_pylist()
    assert [text or "" for text in found] == [joined(*pair) for pair in pairs]
    assert all(pair[1] is None for text, pair in zip(found, pairs, strict=True) if text is None)


def test_a_text_that_is_not_utf8_changes_no_other() -> None:
    texts = pa.array([b"\xff", "\u00a0x\u00a0".encode()], pa.binary())
    broken = pa.chunked_array([pa.Array.from_buffers(pa.string(), 2, texts.buffers())])
    found = with_titles(pa.chunked_array([["a", None]], pa.string()), broken)
    assert found.cast(pa.large_binary()).to_pylist() == [b"a \xff", b"x"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_documents_get_the_same_scores_in_every_layout(
    tmp_path: Path, wanted: Callable[..., dict[str, float]], layout: Callable[..., dict[str, Any]]
) -> None:
    _, manifest = run(tmp_path, layout(tmp_path, DOCUMENTS))
    texts = [joined(each["title"], each["text"]) for each in DOCUMENTS[:5]]
    assert scores(tmp_path) == wanted(*texts)
    in_pairs = "candidate_title" if layout is as_lists else "title"  # the query has one there
    assert manifest.title_col == in_pairs
    [rejected] = read_rejected(tmp_path / "out")
    assert rejected["doc_id"] == "d5"
    assert rejected["reason"] in ("document is null", "document is empty")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_titles_can_be_left_out(
    tmp_path: Path, wanted: Callable[..., dict[str, float]], layout: Callable[..., dict[str, Any]]
) -> None:
    documents, none = DOCUMENTS[:4], "" if layout is as_pairs else "none"
    _, manifest = run(tmp_path, {**layout(tmp_path, documents), "title_col": none})
    assert scores(tmp_path) == wanted(*(each["text"] for each in documents))
    assert manifest.title_col is None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_another_column_can_be_the_title(
    tmp_path: Path, wanted: Callable[..., dict[str, float]], layout: Callable[..., dict[str, Any]]
) -> None:
    documents = [{"id": "d0", "title": "no", "text": "text", "headline": "Headline"}]
    _, manifest = run(tmp_path, {**layout(tmp_path, documents), "title_col": "headline"})
    assert scores(tmp_path) == wanted("Headline text")
    assert manifest.title_col == "headline"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("title_col", "message"),
    [
        ("headline", "no 'headline' for --title-col; there are: "),
        ("year", "'year' is int64, not text; give another --title-col, or none"),
        ("text", "'text' is a text or an id already; give another --title-col"),
    ],
)
def test_what_can_be_no_title_is_refused(
    tmp_path: Path, layout: Callable[..., dict[str, Any]], title_col: str, message: str
) -> None:
    if title_col == "text" and layout in (as_pairs, as_json_pairs, as_scattered):
        title_col, message = "document", message.replace("text'", "document'", 1)
    options = layout(tmp_path, [{"id": "d0", "title": "a", "text": "b", "year": 1999}])
    with pytest.raises(InputError, match=message):
        check(JobSpec(output_uri="out", model_id="null", title_col=title_col, **options))


def test_lists_of_texts_have_no_title(tmp_path: Path) -> None:
    path = parquet([{"query": "q", "candidates": ["a", "b"]}], tmp_path / "in.parquet")
    with pytest.raises(InputError, match="no 'title' for --title-col; there are: none"):
        check(JobSpec(input_uri=str(path), output_uri="out", layout="lists", title_col="title"))


def test_a_title_in_json_that_is_no_text_is_rejected(tmp_path: Path) -> None:
    documents = [{"id": "d0", "title": 7, "text": "b"}, {"id": "d1", "title": "a", "text": "b"}]
    run(tmp_path, as_json_pairs(tmp_path, documents))
    assert [row["reason"] for row in read_rejected(tmp_path / "out")] == ["title is not text"]


def test_kept_columns_stay_as_they_are(tmp_path: Path) -> None:
    documents = [{"title": "a", "text": " b "}, {"title": None, "text": "c"}]
    options = as_lists(tmp_path, documents)
    run(tmp_path, {**options, "explode": False})
    [row] = read_output(tmp_path / "out")
    kept = [(each["document"], each["candidate_title"]) for each in row["candidates"]]
    assert sorted(kept) == [(" b ", "a"), ("c", None)]


def test_the_name_of_a_job_without_the_option_is_that_of_before(tmp_path: Path) -> None:
    spec = JobSpec(input_uri="/in", output_uri="/out")
    assert job_id_for(spec, ()) == "8f117a5153ad"
    assert job_id_for(spec.model_copy(update={"title_col": "none"}), ()) != "8f117a5153ad"


@pytest.mark.parametrize("for_reuse", [True, False])
def test_scores_of_other_titles_are_never_reused(tmp_path: Path, for_reuse: bool) -> None:
    """What is known is known by the joined text, hashed when scored or from the kept columns."""
    earlier, later = made(tmp_path / "1"), made(tmp_path / "2")
    documents = [{"id": f"d{n}", "title": f"t{n}", "text": f"text {n}"} for n in range(3)]
    kept = ("query", "document", "title")
    job, manifest = run(
        earlier, {**as_pairs(earlier, documents), "for_reuse": for_reuse, "keep_cols": kept}
    )
    for write, what in (("write_job", job.record), ("write_plan", job.plan)):
        getattr(job.output, write)(what)
    job.output.write_manifest(manifest)
    job.output.mark_success()
    documents[1]["title"] = "another"
    documents[2] = {"id": "d2", "title": "", "text": "t2 text 2"}
    options = as_pairs(later, documents)

    def n_known(**more: Any) -> int:
        spec = JobSpec(output_uri=str(later / "out"), model_id="null", **options, **more)
        plan = check(spec).plan
        assert isinstance(plan, Plan)
        opened = Earlier.open(str(earlier / "out"))
        return look_up(spec, plan, opened, later, lambda *_: None).n_known

    assert n_known() == 2
    assert n_known(title_col="none") == 1


def test_every_layout_repeats_titles_before_passages(tmp_path: Path) -> None:
    documents: list[dict[str, Any]] = [
        {"id": f"d{n}", "title": title, "text": "A shared library of headers. " * 8}
        for n, title in enumerate(("libfoo", " libbar-dev\t", "", None))
    ]
    options = {"model_id": "demo", "precision": "fp32", "max_length": 32}
    found = []
    for layout in (as_pairs, as_json_lists, as_run):
        folder = made(tmp_path / layout.__name__)
        run(folder, {**options, "long_docs": "max-passage", **layout(folder, documents)})
        rows = read_output(folder / "out")
        names = ("logit", "n_tokens", "n_passages", "best_passage_start", "best_passage_end")
        found.append(
            {row.get("doc_id") or row["id"]: [row[name] for name in names] for row in rows}
        )
        assert not {"_title_chars", "input__title_chars"} & set(rows[0])
    assert found[0] == found[1] == found[2]
    logits = {key: values[0] for key, values in found[0].items()}
    assert logits["d2"] == logits["d3"] != logits["d0"] and found[0]["d0"][2] > 2
    n_tokens = {key: values[1] for key, values in found[0].items()}
    assert n_tokens["d0"] >= n_tokens["d2"] + found[0]["d0"][2], "each passage has the title"


@pytest.mark.parametrize("layout", [as_lists, as_run])
def test_an_estimate_counts_titles_and_names_them(
    tmp_path: Path, layout: Callable[..., dict[str, Any]]
) -> None:
    documents = [{"id": "d0", "title": "long " * 9, "text": "a"}]
    options = JobOptions(model_id="demo", **layout(tmp_path, documents))
    found = estimate(options, device="cpu", calibrate=False)
    assert found.title_col in ("title", "candidate_title") and found.tokens is not None
    assert found.tokens.n_tokens > 12
