"""Lists of candidates, exploded into pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from producer.prepare.job_inputs import find_inputs
from producer.prepare.open_dataset import open_dataset
from producer.prepare.prepare import prepare
from producer.tables.database import Database
from producer.tables.workspace import Workspace
from rankmill.errors import InputError
from tests.support.prepared import damage, prepared, spec_of, write_jsonl, write_table

pytestmark = pytest.mark.slow

STRUCT = pa.struct([("doc_id", pa.int32()), ("text", pa.string()), ("price", pa.decimal128(5, 2))])


def lists(tmp_path: Path, table: pa.Table, **options: Any) -> pa.Table:
    path = write_table(tmp_path / "in" / "lists.parquet", table)
    return prepared(spec_of(path, layout="lists", **options), tmp_path)


def test_each_candidate_becomes_a_row_in_order(tmp_path: Path) -> None:
    table = pa.table(
        {
            "query_id": pa.array([7, 3], pa.uint16()),
            "query": ["a", "b"],
            "document": [["x", "y", "z"], ["x"]],
            "tags": [["t"], None],
        }
    )
    found = lists(tmp_path, table)
    uri = str(tmp_path / "in" / "lists.parquet")
    status = {"_refusal": None, "_file": uri}
    assert found.to_pylist() == [
        {"query_id": 7, "query": "a", "document": text, "tags": ["t"], **status, "_row": 0}
        for text in "xyz"
    ] + [{"query_id": 3, "query": "b", "document": "x", "tags": None, **status, "_row": 1}]
    assert found.schema.field("query_id").type == pa.uint16()
    assert found.schema.field("_row").type == pa.int64()


def test_a_query_without_an_id_gets_its_rows_number(tmp_path: Path) -> None:
    table = pa.table({"query": ["same", "same"], "docs": [["x", "y"], ["x"]]})
    for n in range(2):
        write_table(tmp_path / "in" / f"{n}.parquet", table)
    found = prepared(spec_of(tmp_path / "in", layout="lists"), tmp_path)
    assert found["query_id"].to_pylist() == [0, 0, 1, 2, 2, 3]
    assert found.schema.field("query_id").type == pa.int64()
    assert found["_row"].to_pylist() == [0, 0, 1, 0, 0, 1]


def test_the_fields_of_candidates_become_columns(tmp_path: Path) -> None:
    candidates = [[{"doc_id": 1, "text": "x", "price": 1}, {"doc_id": 2, "text": None}], []]
    table = pa.table(
        {
            "query": pa.array(["a", "b"]).dictionary_encode(),
            "candidates": pa.array(candidates, pa.large_list(STRUCT)),
            "price": pa.array([1.5, 2.5]),
        }
    )
    found = lists(tmp_path, table)
    assert found.schema.names[:4] == ["query_id", "doc_id", "query", "document"]
    assert found["doc_id"].to_pylist() == [1, 2, None]
    assert found["price"].to_pylist() == [1.5, 1.5, 2.5]
    assert found["candidate_price"].to_pylist() == [1, None, None]
    assert found.schema.field("candidate_price").type == STRUCT.field("price").type
    assert found.schema.field("query").type == table.schema.field("query").type


def test_missing_candidates_are_refused_and_kept(tmp_path: Path) -> None:
    element = {"doc_id": 1, "text": "x", "price": None}
    column = pa.array([None, [], [element, None], [{**element, "text": None}]], pa.list_(STRUCT))
    table = pa.table({"query_id": list("abcd"), "query": list("abcd"), "document": column})
    found = lists(tmp_path, table)
    assert found["query_id"].to_pylist() == ["a", "b", "c", "c", "d"]
    refusals = ["no candidates", "no candidates", None, "candidate is null", None]
    assert found["_refusal"].to_pylist() == refusals
    assert found["document"].to_pylist() == [None, None, "x", None, None]


def test_lists_of_fixed_size_with_nulls_and_lists_in_jsonl(tmp_path: Path) -> None:
    column = pa.array([["x", "y"], None, ["z", "w"]], pa.list_(pa.string(), 2))
    found = lists(tmp_path, pa.table({"query": list("abc"), "document": column}))
    assert found["document"].to_pylist() == ["x", "y", None, "z", "w"]
    rows = [
        {"query": "a", "docs": [{"id": "007", "text": "x", "lang": "de"}, {"id": "8"}]},
        {"query": "b", "docs": []},
    ]
    path = write_jsonl(tmp_path / "lists.jsonl", rows)
    found = prepared(spec_of(path, layout="lists"), tmp_path)
    assert found["doc_id"].to_pylist() == ["007", "8", None]
    assert found["document"].to_pylist() == ["x", None, None]
    assert found["lang"].to_pylist() == ["de", None, None]
    assert found["_refusal"].to_pylist() == [None, None, "no candidates"]


def test_lists_in_a_damaged_row_group_can_be_set_aside(tmp_path: Path) -> None:
    table = pa.table({"query": ["a", "b", "c"], "document": [["x"], ["y", "y"], ["z"]]})
    path = damage(write_table(tmp_path / "in.parquet", table, row_group_size=1), row_group=1)
    found = prepared(spec_of(path, layout="lists", damaged="reject"), tmp_path)
    assert found["document"].to_pylist() == ["x", None, "z"]
    assert found["_refusal"].to_pylist() == [None, "row group 1 is damaged", None]
    assert found["query_id"].to_pylist() == [0, 1, 2]


def test_more_lists_than_a_batch_are_read(tmp_path: Path) -> None:
    documents = [[f"{q}-{c}" for c in range(q % 7)] for q in range(500)]
    table = pa.table({"query": [f"q{q}" for q in range(500)], "document": documents})
    found = lists(tmp_path, table)
    expected = [(q, text) for q, texts in enumerate(documents) for text in (texts or [None])]
    assert list(zip(found["query_id"].to_pylist(), found["document"].to_pylist(), strict=True)) == (
        expected
    )


def test_a_query_in_two_rows_is_brought_together_if_asked(tmp_path: Path) -> None:
    table = pa.table(
        {"query_id": list("aba"), "query": list("xyx"), "document": [["1", "2"], ["3"], ["4"]]}
    )
    found = lists(tmp_path, table, cluster=True)
    assert found["document"].to_pylist() == ["1", "2", "4", "3"]
    assert found["_row"].to_pylist() == [0, 0, 2, 1]


def test_only_the_columns_to_keep_are_carried(tmp_path: Path) -> None:
    table = pa.table({"query": ["a"], "document": [["x"]], "b": [1], "c": [2]})
    found = lists(tmp_path, table, keep_cols=("c",))
    assert found.schema.names[:4] == ["query_id", "query", "document", "c"]
    assert "b" not in found.schema.names


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (
            {"query": ["a"], "document": ["x"]},
            {},
            r"in/lists.parquet looks like pairs, not as --layout says: query \(string\), "
            r"document \(string\); give --layout pairs",
        ),
        ({"query": ["a"], "n": [1]}, {}, r"'document' is not a list of candidates; .* n \(int64\)"),
        (
            {"query": ["a"], "docs": [["x"]], "candidates": [["x"]]},
            {},
            "'candidates' and 'docs' are lists; choose by --document-col",
        ),
        (
            {"query": ["a"], "document": [[{"id": 1, "words": "x"}]]},
            {},
            "the candidates in 'document' have no field 'text' or 'document' or 'contents' or "
            "'passage' or 'content' or 'segment' or 'body'; they have: id, words",
        ),
        (
            {"query": ["a"], "doc_id": [1], "document": [[{"id": 1, "text": "x"}]]},
            {},
            "column 'doc_id' would be there twice, once from 'document'",
        ),
        ({"query": ["a"], "document": [[1]]}, {}, "column 'document' is int64, not text"),
        ({"document": [["x"]]}, {}, "column 'query' is missing; the columns there are:"),
        ({"query": ["a"], "document": [["x"]]}, {"query_id_col": "qid"}, "'qid' is missing"),
        ({"query": ["a"], "document": [["x"]]}, {"keep_cols": ("b",)}, "'b' is missing"),
        ({"query": ["a"], "document": [["x"]], "_row": [1]}, {}, "'_row' needs another name"),
    ],
)
def test_columns_that_are_not_lists_are_refused_at_once(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as refused:
        lists(tmp_path, pa.table(columns), **options)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "prepared").exists()


def test_a_long_query_column_is_repeated_in_pieces(tmp_path: Path) -> None:
    """It would take 2.3 GB to repeat it for all candidates at once."""
    row = {"query_id": "q", "query": "x" * 70_000, "docs": [f"d{n}" for n in range(33_000)]}
    write_table(tmp_path / "in.parquet", pa.Table.from_pylist([row]))
    spec = spec_of(tmp_path / "in.parquet", layout="lists")
    with Database() as database:
        dataset = open_dataset(spec, find_inputs(spec), database)
        tables = dataset.tables(Workspace(tmp_path, database, lambda *_: None))
        assert sum(table.num_rows for table in tables) == 33_000


def test_a_list_with_more_text_than_arrow_counts_in_32_bits(tmp_path: Path) -> None:
    """One row has 2.2 GB of texts, though the file is small."""
    n_candidates, text_bytes = 32_000, 70_000
    texts = pa.array([f"{n} ".ljust(text_bytes, "x") for n in range(5)])
    coded = pa.DictionaryArray.from_arrays(pa.array(np.arange(n_candidates) % 5, pa.int32()), texts)
    ids = pa.array(np.arange(n_candidates).astype(str))
    candidates = pa.StructArray.from_arrays([ids, coded], ["id", "text"])
    column = pa.ListArray.from_arrays(pa.array([0, 3, n_candidates], pa.int32()), candidates)
    table = pa.table({"query": ["a", "b"], "candidates": column})
    path = write_table(tmp_path / "in.parquet", table, store_schema=False)
    spec = spec_of(path, layout="lists")
    prepare(spec, find_inputs(spec), str(tmp_path / "out"), tmp_path / "scratch", lambda *_: None)
    found = ds.dataset(tmp_path / "out")
    assert found.schema.field("document").type == pa.string()
    rows = found.to_table(columns=["doc_id", "_row"])
    assert rows["doc_id"].to_pylist() == ids.to_pylist()
    assert rows["_row"].to_pylist() == [0] * 3 + [1] * (n_candidates - 3)
    last = found.to_table(columns=["document"], filter=ds.field("doc_id") == str(n_candidates - 1))
    assert last["document"].to_pylist() == [texts[(n_candidates - 1) % 5].as_py()]
