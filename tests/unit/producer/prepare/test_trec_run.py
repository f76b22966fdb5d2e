"""A TREC run joined with the texts of its queries and documents."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankmill.errors import InputError
from tests.support.prepared import prepared, spec_of, write_jsonl, write_lines, write_table

pytestmark = pytest.mark.slow

RUN = [
    "q2 Q0 d1 1 9.5 tag",
    "q1\tQ0\td2\t1\t8\ttag",
    "  q2 Q0 d3   2 -1e-3 tag  ",
    "q3 Q0 d1 1 7 tag",
    "q1 Q0 d9 2 nan tag",
]
QUERIES = [{"_id": "q1", "text": "one", "metadata": {}}, {"_id": "q2", "text": "two"}]
CORPUS = [
    {"_id": "d1", "title": "Title ", "text": " first "},
    {"_id": "d2", "title": "", "text": " second "},
    {"_id": "d3", "title": "Only title"},
    {"_id": "d4", "title": "never", "text": "asked for"},
]


def paths(folder: Path, run: Any = RUN, queries: Any = QUERIES, corpus: Any = CORPUS) -> Any:
    """Return the spec of a TREC run with queries and corpus in JSONL."""
    return spec_of(
        write_lines(folder / "in" / "a.run", run),
        layout="run",
        queries=write_jsonl(folder / "in" / "queries.jsonl", queries),
        corpus=write_jsonl(folder / "in" / "corpus.jsonl", corpus),
    )


def test_a_run_gets_its_texts_query_by_query(tmp_path: Path) -> None:
    found = prepared(paths(tmp_path), tmp_path)
    uri = str(tmp_path / "in" / "a.run")
    rows = found.to_pylist()
    assert rows[0] == {
        "query_id": "q2",
        "doc_id": "d1",
        "query": "two",
        "document": "Title   first",
        "score": 9.5,
        "_refusal": None,
        "_file": uri,
        "_row": 0,
    }
    assert [(row["query_id"], row["doc_id"], row["query"], row["document"]) for row in rows] == [
        ("q2", "d1", "two", "Title   first"),
        ("q2", "d3", "two", "Only title"),
        ("q1", "d2", "one", "second"),
        ("q1", "d9", "one", None),
        ("q3", "d1", None, "Title   first"),
    ]
    assert [row["_refusal"] for row in rows] == [
        None,
        None,
        None,
        "document is not in --corpus",
        "query is not in --queries",
    ]
    assert [row["_row"] for row in rows] == [0, 2, 1, 4, 3]
    assert found.schema.field("score").type == pa.float64()
    assert found.schema.field("document").type == pa.string()


def test_documents_in_passages_have_the_lengths_of_their_titles(tmp_path: Path) -> None:
    spec = paths(tmp_path).model_copy(update={"long_docs": "max-passage"})
    found = prepared(spec, tmp_path)
    lengths = dict(zip(found["doc_id"].to_pylist(), found["_title_chars"].to_pylist(), strict=True))
    assert lengths == {"d1": 5, "d2": 0, "d3": 10, "d9": None}


def test_texts_as_tsv_in_several_archives(tmp_path: Path) -> None:
    corpus = {"0.tsv.gz": "d1\tfirst\n\nd2\t second \n", "1.tsv.gz": "d3\t\n"}
    for name, text in corpus.items():
        (tmp_path / "corpus").mkdir(exist_ok=True)
        (tmp_path / "corpus" / name).write_bytes(gzip.compress(text.encode()))
    run = tmp_path / "in.run.gz"
    run.write_bytes(gzip.compress("\n".join(RUN).encode()))
    queries = write_lines(tmp_path / "queries.tsv", ["q1\tone", "q2\ttwo\r"])
    spec = spec_of(run, layout="run", queries=queries, corpus=tmp_path / "corpus")
    found = prepared(spec, tmp_path)
    assert found["query"].to_pylist() == ["two", "two", "one", "one", None]
    assert found["document"].to_pylist() == ["first", "", " second ", None, "first"]


def test_a_run_as_parquet_keeps_its_columns_and_types(tmp_path: Path) -> None:
    run = pa.table(
        {
            "price": pa.array([1, 2, None], pa.decimal128(9, 2)),
            "qid": pa.array([2, 1, None], pa.int32()),
            "doc_id": pa.array(["b", "a", "b"]).dictionary_encode(),
        }
    )
    queries = pa.table({"qid": pa.array([1, 2], pa.uint64()), "text": ["one", "two"]})
    corpus = pa.table({"docid": ["a", "b"], "title": ["A", None], "contents": ["x", "y"]})
    spec = spec_of(
        write_table(tmp_path / "run.parquet", run),
        layout="run",
        query_id_col="qid",
        queries=write_table(tmp_path / "queries.parquet", queries),
        corpus=write_table(tmp_path / "corpus.parquet", corpus),
    )
    found = prepared(spec, tmp_path)
    assert found.schema.names[:5] == ["qid", "doc_id", "query", "document", "price"]
    for name in run.schema.names:
        assert found[name].equals(pa.chunked_array([run[name].combine_chunks()])), name
    assert found["query"].to_pylist() == ["two", "one", None]
    assert found["document"].to_pylist() == ["y", "A x", "y"]
    assert found["_refusal"].to_pylist() == [None, None, "query is not in --queries"]


def test_a_run_may_be_jsonl_and_named_without_a_suffix(tmp_path: Path) -> None:
    spec = paths(tmp_path)
    lines = write_lines(tmp_path / "results", RUN)
    expected = prepared(spec, tmp_path).to_pylist()
    by_content = spec.model_copy(update={"input_uri": str(lines)})
    found = prepared(by_content, tmp_path).to_pylist()
    assert str(found) == str(expected).replace("in/a.run", "results")  # as text: nan is not nan
    rows = [{"query_id": "q1", "doc_id": "d2", "lang": "de"}]
    run = str(write_jsonl(tmp_path / "run.jsonl", rows))
    found = prepared(spec.model_copy(update={"input_uri": run}), tmp_path)
    assert found["document"].to_pylist() == ["second"]
    assert found["lang"].to_pylist() == ["de"]


IDS = st.sampled_from("abcde")


@settings(max_examples=40)
@given(
    run=st.lists(st.tuples(IDS, IDS), max_size=30),
    queries=st.dictionaries(IDS, st.text(st.characters(exclude_characters="\t\r\n"), max_size=3)),
    corpus=st.dictionaries(IDS, st.none() | st.text(max_size=3)),
)
def test_the_join_is_that_of_two_dictionaries(
    run: list[tuple[str, str]], queries: dict[str, str], corpus: dict[str, str | None]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec = spec_of(
            write_lines(folder / "a.run", (f"{q} Q0 {d} 1 {n} t" for n, (q, d) in enumerate(run))),
            layout="run",
            duplicates="keep",
            queries=write_table(
                folder / "queries.parquet",
                pa.table(
                    {"id": pa.array(queries, pa.string()), "text": list(queries.values())},
                )
                if queries
                else pa.table({"id": pa.array([], pa.string()), "text": pa.array([], pa.string())}),
            ),
            corpus=write_jsonl(
                folder / "corpus.jsonl",
                [{"_id": "never", "text": "x"}]
                + [{"_id": key, "text": text} for key, text in corpus.items()],
            ),
        )
        found = prepared(spec, folder)
    asked = [query for query, _ in run]
    order = sorted(range(len(run)), key=lambda n: asked.index(asked[n]))
    assert found["score"].to_pylist() == [float(n) for n in order]
    assert found["query"].to_pylist() == [queries.get(run[n][0]) for n in order]
    assert found["document"].to_pylist() == [corpus.get(run[n][1]) for n in order]
    refusals = [
        "query is not in --queries"
        if run[n][0] not in queries
        else None
        if run[n][1] in corpus
        else "document is not in --corpus"
        for n in order
    ]
    assert found["_refusal"].to_pylist() == refusals


def test_a_text_that_comes_twice_must_be_the_same(tmp_path: Path) -> None:
    again = {"_id": "d1", "title": "Title", "text": "  first"}
    found = prepared(paths(tmp_path, corpus=[*CORPUS, again, *CORPUS]), tmp_path)
    assert found.num_rows == len(RUN)
    for other in ("else", None):
        corpus = [*CORPUS, {"_id": "d3", "text": other}]
        message = r"--corpus .*corpus\.jsonl: _id 'd3' is there more than once, with different"
        with pytest.raises(InputError, match=message):
            prepared(paths(tmp_path, corpus=corpus), tmp_path)
    queries = [*QUERIES, {"_id": "q1", "text": "other"}]
    with pytest.raises(InputError, match=r"--queries .*: _id 'q1' is there more than once"):
        prepared(paths(tmp_path, queries=queries), tmp_path)
    assert not (tmp_path / "prepared").exists()


def test_a_pair_that_comes_twice_is_refused_or_kept(tmp_path: Path) -> None:
    spec = paths(tmp_path, run=[*RUN, "", "q1 Q0 d2 9 1 tag"])
    message = (
        r"query_id 'q1' has doc_id 'd2' twice: row 1 of .*a\.run and row 6 of .*a\.run, "
        "counted from 0; --duplicates keep"
    )
    with pytest.raises(InputError, match=message):
        prepared(spec, tmp_path)
    found = prepared(spec.model_copy(update={"duplicates": "keep"}), tmp_path)
    assert found["doc_id"].to_pylist() == ["d1", "d3", "d2", "d9", "d2", "d1"]


def test_rows_without_ids_are_not_pairs(tmp_path: Path) -> None:
    run = pa.table({"query_id": pa.array(["q1", "q1", None]), "doc_id": pa.nulls(3, pa.string())})
    path = write_table(tmp_path / "run.parquet", run)
    spec = paths(tmp_path).model_copy(update={"input_uri": str(path)})
    found = prepared(spec, tmp_path)
    assert found["_refusal"].to_pylist() == [
        "document is not in --corpus",
        "document is not in --corpus",
        "query is not in --queries",
    ]


def test_a_title_that_is_not_utf8_does_not_fail_the_job(tmp_path: Path) -> None:
    text = pa.Array.from_buffers(pa.string(), 2, pa.array([b"\xff ", b"x"]).buffers())
    corpus = pa.table({"_id": ["d1", "d2"], "title": text, "text": text})
    path = write_table(tmp_path / "corpus.parquet", corpus)
    spec = paths(tmp_path).model_copy(update={"corpus": str(path)})
    found = prepared(spec, tmp_path)["document"].cast(pa.binary()).to_pylist()
    assert found == [b"\xff  \xff", None, b"x x", None, b"\xff  \xff"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["q1 Q0 d1 1 1 t", "q1 Q0 d1"], "line 2 has 3 columns, where a TREC run has 6: query_id"),
        (["q1 Q0 d1 1 1 t", "q1 Q0 d1 1 x t"], "line 2 has the score 'x', which is not a number"),
    ],
)
def test_lines_that_are_not_a_runs_are_named(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=rf"a\.run: {message}"):
        prepared(paths(tmp_path, run=lines), tmp_path)
    late = ["q1 Q0 d1 1 1 a-tag-to-fill-the-first-bytes"] * 3000 + lines[1:]
    with pytest.raises(InputError, match=rf"a\.run: {message}".replace("line 2", "line 3001")):
        prepared(paths(tmp_path, run=late), tmp_path)


@pytest.mark.parametrize("line", ["d1", "d1\ta\tb"])
def test_a_tsv_line_without_exactly_one_tab_is_refused(tmp_path: Path, line: str) -> None:
    path = write_lines(tmp_path / "corpus.tsv", ["d1\tx", line])
    spec = paths(tmp_path).model_copy(update={"corpus": str(path)})
    message = r"corpus\.tsv: line 2 has [13] columns, where texts have 2: id<TAB>text"
    with pytest.raises(InputError, match=message):
        prepared(spec, tmp_path)


def test_long_texts_are_joined_with_their_rows(tmp_path: Path) -> None:
    """Their blocks are smaller than those of the rows and the queries."""
    corpus = [{"_id": f"d{n}", "text": str(n) * 100_000} for n in range(5)]
    run = [f"q{n % 2} Q0 d{n % 5} 1 {n} tag" for n in range(2000)]
    spec = paths(tmp_path, run, corpus=corpus).model_copy(update={"duplicates": "keep"})
    found = prepared(spec, tmp_path)
    rows = [*range(0, 2000, 2), *range(1, 2000, 2)]
    assert found["_row"].to_pylist() == rows
    assert [text[:2] for text in found["document"].to_pylist()] == [str(n % 5) * 2 for n in rows]
    assert found["query"].to_pylist() == [None] * 1000 + ["one"] * 1000
