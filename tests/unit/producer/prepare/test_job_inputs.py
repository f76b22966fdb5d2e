"""The files of a job's input, queries and corpus: found, checked, and prepared."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from producer.jobs.check import check
from producer.prepare.job_inputs import find_inputs, needs_prepare
from producer.prepare.prepare import prepare
from rankmill.contract.job import JobSpec
from rankmill.errors import InputError
from tests.support.prepared import damage, prepared, spec_of, write_jsonl, write_lines, write_table

PAIRS = {"query": ["a"], "document": ["x"]}
RUN_IDS = {"query_id": ["q1"], "doc_id": ["d1"]}


def test_parquet_with_clustered_pairs_needs_no_preparation(tmp_path: Path) -> None:
    path = write_table(tmp_path / "in" / "a.parquet", pa.table(PAIRS))
    write_lines(tmp_path / "in" / "dataset_info.json", ["{}"])
    for uri in (
        path,
        tmp_path / "in",
        f"{tmp_path}/in/*.parquet",
        path.rename(tmp_path / "noname"),
    ):
        path.parent.mkdir(exist_ok=True)
        if uri != tmp_path / "noname":
            write_table(path, pa.table(PAIRS))
        assert not needs_prepare(spec_of(uri)), uri
        assert needs_prepare(spec_of(uri, cluster=True))
        assert needs_prepare(spec_of(uri, layout="lists"))
    for name in ("a.jsonl", "b.ndjson.gz", "c.tsv.zst", "d.JSON"):
        assert needs_prepare(spec_of(write_lines(tmp_path / name, [])))
    assert needs_prepare(spec_of(write_lines(tmp_path / "plain", ['{"query": "a"}'])))


@pytest.mark.parametrize("name", ["_refusal", "_file", "_row"])
@pytest.mark.parametrize("options", [{}, {"cluster": True}])
def test_a_column_that_preparing_would_add_is_refused(
    tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    path = write_table(tmp_path / "in.parquet", pa.table({**PAIRS, name: ["mine"]}))
    with pytest.raises(InputError, match=rf"in\.parquet: column '{name}' needs another name"):
        check(spec_of(path, **options))


@pytest.mark.parametrize("option", ["queries", "corpus", "queries_version", "corpus_version"])
@pytest.mark.parametrize("cluster", [False, True])
def test_an_option_of_runs_is_refused_for_pairs(tmp_path: Path, option: str, cluster: bool) -> None:
    path = write_table(tmp_path / "in.parquet", pa.table(PAIRS))
    flag = f"--{option}".replace("_", "-")
    with pytest.raises(InputError, match=f"{flag} is for --layout run, not pairs"):
        check(spec_of(path, cluster=cluster, **{option: "1"}))


def run_spec(tmp_path: Path, run: dict[str, Any], **options: Any) -> JobSpec:
    return spec_of(
        write_table(tmp_path / "in" / "run.parquet", pa.table(run)),
        layout="run",
        queries=write_table(tmp_path / "queries.parquet", pa.table({"id": ["q1"], "text": ["x"]})),
        corpus=write_jsonl(tmp_path / "corpus.jsonl", [{"_id": "d1", "text": "x"}]),
        **options,
    )


def test_all_files_are_found_in_a_fixed_order(tmp_path: Path) -> None:
    spec = run_spec(tmp_path, RUN_IDS)
    write_table(tmp_path / "in" / "b.parquet", pa.table(RUN_IDS))
    spec = spec.model_copy(update={"input_uri": str(tmp_path / "in")})
    found = find_inputs(spec)
    assert [(Path(file.uri).name, file.n_rows, file.role) for file in found] == [
        ("b.parquet", 1, "input"),
        ("run.parquet", 1, "input"),
        ("queries.parquet", 1, "queries"),
        ("corpus.jsonl", 0, "corpus"),
    ]
    assert all(file.size_bytes == os.stat(file.uri).st_size for file in found)
    assert found == find_inputs(spec)


def test_several_places_with_commas(tmp_path: Path) -> None:
    paths = [write_jsonl(tmp_path / f"{n}.jsonl", [{"query": n, "document": n}]) for n in "ba"]
    found = prepared(spec_of(",".join(map(str, paths))), tmp_path)
    assert found["query"].to_pylist() == ["b", "a"]


def test_suffixes_may_be_in_capital_letters(tmp_path: Path) -> None:
    write_table(tmp_path / "a" / "A.PARQUET", pa.table(PAIRS))
    write_lines(tmp_path / "b" / "B.JsonL.GZ", [])
    assert not needs_prepare(spec_of(tmp_path / "a"))
    assert needs_prepare(spec_of(tmp_path / "b"))


def test_a_file_named_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(tmp_path / "in" / "a.parquet", pa.table(PAIRS))
    monkeypatch.chdir(tmp_path)
    for uris in (f"{tmp_path}/in,in/a.parquet", "in/*,in", "in/a.parquet,in/a.parquet"):
        with pytest.raises(InputError, match=rf"/in/a\.parquet is named twice by .*{uris[-5:]};"):
            needs_prepare(spec_of(uris))


def test_a_file_that_changed_since_is_refused(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "in.jsonl", [{"query": "a", "document": "x"}])
    spec = spec_of(path)
    files = find_inputs(spec)
    write_jsonl(path, [{"query": "a", "document": "other"}])
    with pytest.raises(InputError, match=r"in\.jsonl changed or was removed"):
        prepare(spec, files, str(tmp_path / "out"), tmp_path, lambda *_: None)
    assert not (tmp_path / "out").exists()


def test_a_column_from_folders_is_prepared_too(tmp_path: Path) -> None:
    for day in ("__HIVE_DEFAULT_PARTITION__", 7):
        write_table(tmp_path / "in" / f"day={day}" / "a.parquet", pa.table(PAIRS))
    found = prepared(spec_of(tmp_path / "in", cluster=True), tmp_path)
    assert sorted(found["day"].to_pylist(), key=str) == [7, None]


def test_the_remains_of_an_earlier_attempt_are_removed(tmp_path: Path) -> None:
    for name in ("prepared/part-00007.parquet", "scratch/prepare/database"):
        write_lines(tmp_path / name, ["left behind"])
    path = write_jsonl(tmp_path / "in.jsonl", [{"query": "a", "document": "x"}])
    assert prepared(spec_of(path), tmp_path).num_rows == 1
    assert [path.name for path in (tmp_path / "prepared").iterdir()] == ["part-00000.parquet"]


def test_a_fault_that_shows_late_leaves_nothing(tmp_path: Path) -> None:
    """The first part, of a million rows, is published before the second file is read."""
    candidates = pa.array(["x"] * 1_100_000)
    lists = pa.LargeListArray.from_arrays(pa.array([0, len(candidates)], pa.int64()), candidates)
    for name in "ab":
        write_table(tmp_path / "in" / name, pa.table({"query": ["q"], "document": lists}))
    damage(tmp_path / "in" / "b", row_group=0)
    spec = spec_of(f"{tmp_path}/in/*", layout="lists")
    with pytest.raises(InputError, match="b: row group 0 cannot be read"):
        prepared(spec, tmp_path)
    assert not (tmp_path / "prepared").exists()


def test_progress_is_reported_by_step(tmp_path: Path) -> None:
    spec = run_spec(tmp_path, RUN_IDS)
    reported: list[tuple[str, int]] = []
    prepare(
        spec, find_inputs(spec), str(tmp_path / "out"), tmp_path, lambda *it: reported.append(it)
    )
    assert set(reported) == {
        ("reading ids", 1),
        ("reading the run", 1),
        ("reading --queries", 1),
        ("reading --corpus", 1),
        ("writing", 1),
    }


def test_rows_of_a_damaged_row_group_can_be_set_aside(tmp_path: Path) -> None:
    table = pa.table({"query": [f"q{n}" for n in range(6)], "document": ["x"] * 6})
    path = damage(write_table(tmp_path / "in.parquet", table, row_group_size=2), row_group=1)
    with pytest.raises(InputError, match=r"in\.parquet: row group 1 cannot be .* --damaged reject"):
        prepared(spec_of(path, cluster=True), tmp_path)
    found = prepared(spec_of(path, cluster=True, damaged="reject"), tmp_path)
    assert found["query"].to_pylist() == ["q0", "q1", None, None, "q4", "q5"]
    reason = "row group 1 is damaged"
    assert found["_refusal"].to_pylist() == [None, None, reason, reason, None, None]
    assert found["_row"].to_pylist() == list(range(6))


def test_jsonl_values_that_are_not_text_are_refused(tmp_path: Path) -> None:
    documents: list[Any] = ["fine", {"title": "x"}, 17]
    rows = [{"query": "a", "document": document} for document in documents]
    found = prepared(spec_of(write_jsonl(tmp_path / "in.jsonl", rows)), tmp_path)
    assert found["_refusal"].to_pylist() == [None] + ["document is not text"] * 2
    assert found["document"].to_pylist() == ["fine", '{"title":"x"}', "17"]


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (RUN_IDS, {"queries": "q"}, "--queries is for --layout run, not pairs"),
        (RUN_IDS, {"layout": "run", "queries": "q"}, "a run needs its texts: give --corpus"),
        (
            RUN_IDS,
            {"cluster": True},
            r"in\.parquet looks like run, not as --layout says: query_id \(string\), doc_id "
            r"\(string\); give --layout run with --queries and --corpus",
        ),
        (
            {"query": ["a"], "documents": [["x"]]},
            {"cluster": True},
            r"in\.parquet looks like lists, not .* documents \(list<.*>\); give --layout lists",
        ),
        (PAIRS, {"cluster": True, "query_id_col": "qid"}, "'qid' is missing"),
        (PAIRS, {"cluster": True, "keep_cols": ("price",)}, "'price' is missing"),
        ({**PAIRS, "_file": [1]}, {"cluster": True}, "column '_file' needs another name"),
    ],
)
def test_options_and_columns_that_do_not_fit_are_refused(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    path = write_table(tmp_path / "in.parquet", pa.table(columns))
    with pytest.raises(InputError, match=message) as refused:
        find_inputs(spec_of(path, **options))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("run", "options", "message"),
    [
        (
            {"query_id": [1], "doc_id": ["d1"]},
            {},
            r"run\.parquet: column 'query_id' is int64, but 'id' of --queries .*queries\.parquet "
            "is string; ids must be of one type",
        ),
        (
            {"query_id": ["q1"], "doc_id": [1]},
            {},
            r"'doc_id' is int64, but '_id' of --corpus .*corpus\.jsonl is string",
        ),
        (
            {"qid": ["q1"], "doc_id": ["d1"]},
            {},
            "'query_id' is missing; the columns there are: qid",
        ),
        ({**RUN_IDS, **PAIRS}, {}, "looks like pairs, not as"),
        ({**RUN_IDS, "query": ["a"]}, {}, "the run has a column 'query' of its own"),
        (RUN_IDS, {"keep_cols": ("price",)}, "'price' is missing"),
    ],
)
def test_runs_that_do_not_fit_their_texts_are_refused(
    tmp_path: Path, run: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as refused:
        find_inputs(run_spec(tmp_path, run, **options))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ({"_id": ["d1"], "body": ["x"]}, "no column 'document' or 'text' or 'query' or 'contents'"),
        ({"key": ["d1"], "text": ["x"]}, "no column 'doc_id' or 'docid' or '_id' or 'id' or"),
        ({"_id": ["d1"], "text": [1]}, r"other\.parquet: column 'text' is int64, not text"),
        (
            {"_id": ["d1"], "text": ["x"], "title": [1]},
            "'title' is int64, not text; give another --title-col, or none",
        ),
    ],
)
def test_texts_without_their_columns_are_refused(
    tmp_path: Path, corpus: dict[str, Any], message: str
) -> None:
    path = write_table(tmp_path / "other.parquet", pa.table(corpus))
    spec = run_spec(tmp_path, RUN_IDS).model_copy(update={"corpus": str(path)})
    with pytest.raises(InputError, match=message):
        find_inputs(spec)


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("in.txt", "q1 Q0 d1 1 2.5 tag", "looks like run, not as --layout says: q1 Q0 d1 1 2.5"),
        ("in.tsv", "q1 Q0 d1 1 2.5 tag", "looks like run"),
        (
            "in.tsv",
            "q1\ta text",
            r"line 1 has 2 values .* no names of --layout pairs; .* --columns",
        ),
        ("in.txt", "what is this", "neither Parquet, Arrow, JSONL, TSV nor a TREC run"),
    ],
)
def test_text_files_that_are_not_pairs_are_refused(
    tmp_path: Path, name: str, line: str, message: str
) -> None:
    with pytest.raises(InputError, match=rf"{name}:? {message}"):
        find_inputs(spec_of(write_lines(tmp_path / name, [line])))


def test_places_without_input_or_with_a_mixture_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such file, and no Parquet, JSONL, CSV, TSV"):
        needs_prepare(spec_of(tmp_path / "nowhere"))
    write_lines(tmp_path / "a.jsonl", [])
    write_table(tmp_path / "b.parquet", pa.table(PAIRS))
    with pytest.raises(InputError, match=r"\[b-a\]\.\*: a range in \[\] ends before it begins"):
        needs_prepare(spec_of(tmp_path / "[b-a].*"))
    with pytest.raises(InputError, match=r"a\.jsonl is JSONL, .*b\.parquet is Parquet; give files"):
        needs_prepare(spec_of(tmp_path / "[ab].*"))
