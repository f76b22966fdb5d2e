"""The inputs of the field: values come through exactly, and no column is guessed in silence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from producer.formats.results import looks_like_results, scored
from producer.inputs.usual_names import with_usual_names
from producer.jobs.check import check
from rankmill import storage
from rankmill.contract.job import JobSpec
from rankmill.contract.plan import STATUS_COLUMNS
from rankmill.errors import InputError
from tests.support.field_inputs import FIELD_INPUTS, FieldInput, outcome, pairs_of
from tests.support.prepared import prepared, spec_of

BY_NAME = {case.name: case for case in FIELD_INPUTS}


def rows_of(case: FieldInput, folder: Path) -> list[dict[str, object]]:
    pairs, _ = pairs_of(case, folder)
    rows: list[dict[str, object]] = pairs.drop_columns(list(STATUS_COLUMNS)).to_pylist()
    return rows


def test_a_csv_keeps_the_exact_text_of_ids_quotes_and_newlines(tmp_path: Path) -> None:
    text = (
        "\ufeffqid,pid,query,passage,score\r\n"
        '007,12345678901234567890,"a ""b"", c","x\r\ny",1.5\r\n\r\n7,+1,d,,\r\n'
    )
    rows = rows_of(FieldInput("", {"a.csv": text}), tmp_path)
    assert rows == [
        {
            **{"qid": "007", "pid": "12345678901234567890", "query": 'a "b", c'},
            **{"passage": "x\r\ny", "score": 1.5},
        },
        {"qid": "7", "pid": "+1", "query": "d", "passage": None, "score": None},
    ]


def test_a_line_is_counted_over_values_with_newlines(tmp_path: Path) -> None:
    text = 'query,document\na,"1\n2\n3"\n\nb,c,d\n'
    assert outcome(FieldInput("", {"a.csv": text}), tmp_path) == (
        "refused: a.csv: line 6 has 3 values, where the header has 2"
    )
    long = "query,document\n" + "a,b\n" * 9000 + "a,b,c\n"
    with pytest.raises(InputError, match=r"line 9002 has 3 values"):
        pairs_of(FieldInput("", {"b.csv": long}), tmp_path)
    assert not (tmp_path / "prepared").exists()


def test_files_of_a_folder_are_matched_by_their_headers(tmp_path: Path) -> None:
    files = {"in/a.csv": "query,document\na,b\n", "in/b.csv": "document,query\nd,c\n"}
    rows = rows_of(FieldInput("", files, place="in"), tmp_path)
    assert rows == [{"query": "a", "document": "b"}, {"query": "c", "document": "d"}]
    (tmp_path / "in" / "c.csv").write_text("query,text\na,b\n")
    with pytest.raises(InputError, match=r"c\.csv: its columns are query, text, those of"):
        pairs_of(FieldInput("", {}, place="in"), tmp_path)


def test_ms_marco_has_quotes_as_characters(tmp_path: Path) -> None:
    name = "MS MARCO top1000 (qid, pid, query, passage)"
    for each in (name, "MS MARCO triples of texts"):
        documents = [row["document"] for row in rows_of(BY_NAME[each], tmp_path / each[9:12])]
        assert documents == ['"so', "no"]


def test_labels_come_with_relevant_documents_and_others(tmp_path: Path) -> None:
    lists = {"query": ["a", "b"], "positive": [["p"], []], "negative": [["n", None], ["m"]]}
    pq.write_table(pa.table(lists), tmp_path / "in.parquet")
    spec = spec_of(tmp_path / "in.parquet", layout="lists")
    found = prepared(spec, tmp_path).select(["query", "document", "label", "_refusal"])
    assert [tuple(row.values()) for row in found.to_pylist()] == [
        ("a", "p", 1, None),
        ("a", "n", 0, None),
        ("a", None, None, "candidate is null"),
        ("b", "m", 0, None),
    ]


def test_triples_of_ids_are_two_pairs_each(tmp_path: Path) -> None:
    name = "the same, named"
    [case] = [each for each in FIELD_INPUTS if each.name == name and "triples.tsv" in each.files]
    found = [(row["doc_id"], row["label"], row["document"]) for row in rows_of(case, tmp_path)]
    assert found == [("7", 1, "On so"), ("8", 0, "no"), ("7", 1, "On so"), ("9", 0, None)]


@pytest.mark.parametrize("negatives", [[], None, [{"docid": "b", "text": "no", "title": "On"}]])
def test_objects_may_lack_fields_or_be_missing(
    tmp_path: Path, negatives: list[dict[str, str]] | None
) -> None:
    row = {"query": "how", "positive_passages": [{"docid": "a", "text": "so"}]}
    case = FieldInput("", {"a.jsonl": json.dumps({**row, "negative_passages": negatives})})
    rows = rows_of(replace(case, options={"layout": "lists"}), tmp_path)
    wanted = [("a", "so", None, 1), ("b", "no", "On", 0)][: 1 + len(negatives or ())]
    found = [(row["doc_id"], row["document"], row.get("title"), row["label"]) for row in rows]
    assert found == wanted


def test_integer_ids_join_a_run_by_their_only_spelling(tmp_path: Path) -> None:
    rows = rows_of(BY_NAME["TREC run, and a corpus with integer ids"], tmp_path)
    assert [(row["doc_id"], row["document"]) for row in rows] == [("7", "so"), ("07", None)]


@pytest.mark.parametrize("n_chars", [1, 2, 7, 1000])
def test_results_are_read_in_pieces(n_chars: int) -> None:
    results = {"1": {"7": 1.5, 'a"}': -2e-3}, "2": {}, "ü\n": {"8": 3}}
    for text in (json.dumps(results), json.dumps(results, indent=1, ensure_ascii=False)):
        pieces = [text[at : at + n_chars] for at in range(0, len(text), n_chars)]
        assert list(scored("r", iter(pieces))) == [
            ("1", "7", 1.5),
            ("1", 'a"}', -2e-3),
            ("ü\n", "8", 3.0),
        ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"1": {"7": 1}', "ends too early"),
        ('{"1": {"7": 1}} {', "more text after the end"),
        ('{"1": {"7": true}}', "true as the score of '7', which is not a finite number"),
        ('{"1": {"7": NaN}}', "NaN as the score of '7'"),
        ('{"1": {"7": 1' + 400 * "0" + "}}", "as the score of '7', which is not a finite number"),
        ('{"1": {"\\ud800": 1}}', "has half of a surrogate pair"),
        ('{"1": ' + 100_000 * "[", "nested too deep"),
        ('{"1": 5}', "query '1' is not an object"),
        ('{"1": {"7": 1}\n "2": {}}', "line 2: has '\"' where ',' belongs"),
        ('{"1": {"7": 1, "8"', "cut off"),
    ],
)
def test_results_that_are_wrong_are_refused(text: str, why: str) -> None:
    with pytest.raises(InputError) as error:
        list(scored("r.json", iter([text])))
    assert why in str(error.value)


def test_a_given_name_is_never_replaced() -> None:
    schema = pa.schema([(name, pa.string()) for name in ("question", "text", "docno", "qid")])
    named = with_usual_names(spec_of("in", query_col="frage", doc_id_col="nr"), "in", schema)
    spec = named.spec
    assert (spec.query_col, spec.document_col) == ("frage", "text")
    assert (spec.query_id_col, spec.doc_id_col) == ("qid", "nr")
    assert named.notes == ("columns by their usual names: --document-col text --query-id-col qid",)


def test_a_column_of_another_type_is_no_text() -> None:
    schema = pa.schema([("query", pa.string()), ("text", pa.int64()), ("passage", pa.string())])
    assert with_usual_names(spec_of("in"), "in", schema).spec.document_col == "passage"


@pytest.mark.parametrize("options", [{}, {"layout": "lists"}])
@pytest.mark.parametrize("name", ["text", "positive", "qid", "query"])
def test_a_column_that_is_there_twice_is_named(
    tmp_path: Path, name: str, options: dict[str, str]
) -> None:
    document = [] if options else ["document"]
    names = ["query", *document, "positive", "negative", name, name]
    columns = [pa.array(["a"])] * len(names)
    pq.write_table(pa.Table.from_arrays(columns, names), tmp_path / "in.parquet")
    spec = JobSpec(
        input_uri=str(tmp_path / "in.parquet"), output_uri="out", model_id="null", **options
    )
    with pytest.raises(InputError, match=r"twice|several columns|positive \(string\), positive"):
        check(spec)


def test_a_csv_has_the_numbers_of_the_column_to_fuse(tmp_path: Path) -> None:
    csv = tmp_path / "a.csv"
    csv.write_text("query,document,bm25\na,b,1.5\na,c,\n")
    spec = spec_of(csv, fuse="weighted", fuse_col="bm25")
    assert prepared(spec, tmp_path)["bm25"].to_pylist() == [1.5, None]
    csv.write_text("query,document,bm25\na,b,1.5\na,c,high\n")
    with pytest.raises(InputError, match="line 3 has 'high' in column 'bm25'"):
        prepared(spec, tmp_path / "b")


@pytest.mark.parametrize(
    ("first", "is_results"), [({"qid": 3, "text": "a"}, False), ({"d1": 1.5, "d2": 2}, True)]
)
def test_a_long_first_line_may_be_of_jsonl_or_of_results(
    tmp_path: Path, first: dict[str, object], is_results: bool
) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"query": first, "candidates": {"d": "a" * 70_000}}) + "\n")
    file = storage.stat(str(path))
    assert file is not None and looks_like_results(file) is is_results


def test_ranks_are_no_scores_to_fuse(tmp_path: Path) -> None:
    table = pa.table({"query": ["a"], "document": ["b"], "rank": [1]})
    pq.write_table(table, tmp_path / "in.parquet")
    spec = spec_of(tmp_path / "in.parquet", fuse="rrf", fuse_col="rank")
    with pytest.raises(InputError, match="--fuse-col rank: of ranks, the lowest is best"):
        check(spec.model_copy(update={"model_id": "null"}))
