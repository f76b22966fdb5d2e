"""Pairs, prepared: brought together by query, with their types kept."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankmill.contract.job import JobSpec
from rankmill.errors import InputError
from tests.support.odd_columns import ODD_COLUMNS, is_carried
from tests.support.prepared import prepared, spec_of, write_jsonl, write_lines, write_table


def clustered(folder: Path, table: pa.Table, **options: Any) -> pa.Table:
    path = write_table(folder / "in" / "pairs.parquet", table)
    return prepared(spec_of(path, cluster=True, **options), folder)


def test_rows_come_together_where_their_query_first_appears(tmp_path: Path) -> None:
    for n, ids in enumerate(["bab", "cab"]):
        table = pa.table({"query_id": list(ids), "query": list(ids), "document": list("123")})
        write_table(tmp_path / "in" / f"{n}.parquet", table)
    found = prepared(spec_of(tmp_path / "in", cluster=True), tmp_path)
    assert found["query_id"].to_pylist() == list("bbbaac")
    assert found["document"].to_pylist() == list("133221")
    assert found["_row"].to_pylist() == [0, 2, 2, 1, 1, 0]
    names = [Path(uri).name for uri in found["_file"].to_pylist()]
    assert names == ["0.parquet", "0.parquet", "1.parquet", "0.parquet", "1.parquet", "1.parquet"]


@settings(max_examples=40)
@given(
    keys=st.lists(st.sampled_from([None, "", "a", "ä", "b", "c"]), max_size=40),
    by_text=st.booleans(),
)
def test_every_row_is_kept_once_and_in_stable_order(keys: list[str | None], by_text: bool) -> None:
    key = "query" if by_text else "query_id"
    columns = {
        "query_id": pa.array(keys, pa.string()),
        "query": pa.array(keys, pa.string()),
        "document": pa.array(map(str, range(len(keys))), pa.string()),
    }
    table = pa.table({name: columns[name] for name in (key, "query", "document")})
    with tempfile.TemporaryDirectory() as folder:
        found = clustered(Path(folder), table)
    first = {value: n for n, value in reversed(list(enumerate(keys))) if value is not None}
    order = sorted(range(len(keys)), key=lambda n: (first.get(keys[n], n), n))
    assert found["document"].to_pylist() == [str(n) for n in order]
    assert found[key].to_pylist() == [keys[n] for n in order]
    assert found["_row"].to_pylist() == order


@pytest.mark.parametrize("name", ODD_COLUMNS)
def test_types_values_and_nulls_are_preserved(tmp_path: Path, name: str) -> None:
    table = pa.table(
        {"query": list("abab"), "document": list("1234"), "A": range(4), name: ODD_COLUMNS[name]}
    )
    path = write_table(tmp_path / "in.parquet", table)
    read = pq.read_table(path)
    found = prepared(spec_of(path, cluster=True), tmp_path)
    assert found.column_names[:4] == table.column_names
    assert is_carried(found[name], read[name], name, [0, 2, 1, 3])


@pytest.mark.parametrize("name", ["dictionary", "date", "decimal", "fixed", "uuid", "utc", "flag"])
def test_queries_can_be_named_by_any_plain_type(tmp_path: Path, name: str) -> None:
    key = ODD_COLUMNS[name].take(pa.array([0, 3, 0, 2, 3]))
    table = pa.table({"query_id": key, "query": ["a"] * 5, "document": list("12345")})
    found = clustered(tmp_path, table)
    keys = key.to_pylist()
    order = sorted(range(5), key=lambda n: keys.index(keys[n]))
    assert found["document"].to_pylist() == [str(n + 1) for n in order]


def test_folders_give_columns_and_the_key_too(tmp_path: Path) -> None:
    for query_id in (1, 2):
        table = pa.table({"query": ["a", "b"], "document": ["x", "y"]})
        write_table(tmp_path / "in" / f"query_id={query_id}" / "0.parquet", table)
    found = prepared(spec_of(tmp_path / "in", cluster=True), tmp_path)
    assert found["query_id"].to_pylist() == [1, 1, 2, 2]
    assert found["document"].to_pylist() == ["x", "y", "x", "y"]


def test_a_column_without_a_name_is_carried(tmp_path: Path) -> None:
    table = pa.table({"query": list("aba"), "document": list("123"), "": [7, 8, 9]})
    assert clustered(tmp_path, table)[""].to_pylist() == [7, 9, 8]


def test_text_that_is_not_utf8_is_left_to_scoring(tmp_path: Path) -> None:
    texts = pa.Array.from_buffers(pa.string(), 3, pa.array([b"\xff", b"y", b"\xff"]).buffers())
    found = clustered(tmp_path, pa.table({"query": texts, "document": texts}))
    assert found["document"].cast(pa.binary()).to_pylist() == [b"\xff", b"\xff", b"y"]


JSON_ROWS: list[dict[str, Any]] = [
    {"query_id": "007", "query": "a", "document": "x", "at": "2026-01-01", "n": 1},
    {"query_id": "8", "query": "b", "document": "y", "n": 2.5, "more": {"k": [1]}},
    {"query_id": "007", "query": "a", "document": None, "late": "z"},
]
JSON_COLUMNS = {
    "query_id": ["007", "007", "8"],
    "query": ["a", "a", "b"],
    "document": ["x", None, "y"],
    "at": ["2026-01-01", None, None],
    "n": [1.0, None, 2.5],
    "more": [None, None, {"k": [1]}],
    "late": [None, "z", None],
    "_row": [0, 2, 1],
}


def check_json(spec: JobSpec, tmp_path: Path) -> None:
    found = prepared(spec, tmp_path)
    assert {name: found[name].to_pylist() for name in JSON_COLUMNS} == JSON_COLUMNS
    types = {name: str(found.schema.field(name).type) for name in ("query_id", "n", "more")}
    assert types == {"query_id": "string", "n": "double", "more": "struct<k: list<element: int64>>"}


def test_jsonl_gets_the_types_that_hold_for_all_its_lines(tmp_path: Path) -> None:
    check_json(spec_of(write_jsonl(tmp_path / "in.jsonl", JSON_ROWS)), tmp_path)


def test_values_of_several_types_or_of_none_become_text(tmp_path: Path) -> None:
    line = {"query": "a", "document": "x"}
    rows = [
        {
            **line,
            "id": "007",
            "tags": [1, "b"],
            "none": None,
            "empty": {},
            "same": {"k": 1, "K": 2},
        },
        {**line, "id": 7, "tags": [], "none": None, "empty": {}, "same": {"k": 1}},
    ]
    found = prepared(spec_of(write_jsonl(tmp_path / "in.jsonl", rows)), tmp_path)
    assert found["id"].to_pylist() == ["007", "7"]
    assert found["tags"].to_pylist() == [["1", "b"], []]
    assert found["none"].to_pylist() == [None, None]
    assert found["empty"].to_pylist() == ["{}", "{}"]
    assert found["same"].to_pylist() == ['{"k":1,"K":2}', '{"k":1}']


def test_columns_to_keep_may_come_late_in_jsonl(tmp_path: Path) -> None:
    line = {"query": "a", "document": "x" * 1000}
    rows = [line] * 200 + [{**line, "late": 1}]
    path = write_jsonl(tmp_path / "in.jsonl", rows)
    found = prepared(spec_of(path, keep_cols=("late",)), tmp_path)
    assert found["late"].to_pylist() == [None] * 200 + [1]
    with pytest.raises(InputError, match="'never' is missing"):
        prepared(spec_of(path, keep_cols=("never",)), tmp_path)


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_compressed_jsonl_also_in_several_members(tmp_path: Path, codec: str) -> None:
    content = write_jsonl(tmp_path / "plain", JSON_ROWS).read_bytes()
    members = [content[:150], content[150:]]
    compressed = [bytes(pa.compress(m, codec, asbytes=True)) for m in members]
    if codec == "gzip":
        compressed = [gzip.compress(member) for member in members]
    path = tmp_path / ("in.ndjson.gz" if codec == "gzip" else "in.ndjson.zst")
    path.write_bytes(b"".join(compressed))
    check_json(spec_of(path), tmp_path)


def test_lines_are_counted_with_blank_ones_of_any_ending(tmp_path: Path) -> None:
    line = '{"query": "a", "document": "%s"}'
    lines = ["\ufeff" + line % 0, "", "   ", line % 3 + "\r", "\r", line % 5]
    found = prepared(spec_of(write_lines(tmp_path / "in.json", lines)), tmp_path)
    assert found["document"].to_pylist() == ["0", "3", "5"]
    assert found["_row"].to_pylist() == [0, 3, 5]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"query": "a", "document": "x"}', "", '{"query"'], "line 3 is not a JSON object; JSONL"),
        (["[1]"], "line 1 is not a JSON object"),
        (
            ['{"query": "a", "document": "x"}', '{"query": "a", "document": "\\ud83d"}'],
            "line 2 has an escape that is not a character: half of a surrogate pair",
        ),
        (
            ['{"query": "a", "document": "x"}', '{"query": "a", "document": "x", "query": "b"}'],
            "line 2 has the key 'query' twice",
        ),
        (['{"query": "a", "document": "x", "Query": "b"}'], "'query' and 'Query' differ in case"),
        (['{"query": "a"}'], "'document' is missing; the columns there are: query"),
        ([], "no line of it has a key, so there is no column"),
        (['{"query": "a", "document": "x", "n": 18446744073709551615}'], "lines 1 to 1: Integer"),
        (
            ['{"query_id": "a", "doc_id": "x"}'],
            "looks like run, not as --layout says: .* --queries",
        ),
        (['{"query": "a", "document": ["x"]}'], "looks like lists, not .*; give --layout lists"),
    ],
)
def test_invalid_jsonl_is_refused_with_its_line(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    path = write_lines(tmp_path / "in.jsonl", lines)
    with pytest.raises(InputError, match=rf"(in\.jsonl: )?.*{message}") as refused:
        prepared(spec_of(path), tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("cut", [-3, 40])
def test_a_damaged_archive_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"query": "a", "document": "x"}\n' * 100)[:cut])
    with pytest.raises(InputError, match=r"in\.jsonl\.gz: truncated or damaged gzip"):
        prepared(spec_of(path), tmp_path)


def test_a_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"query": "a", "document": "x"}\n{"query": "\xff"}\n')
    with pytest.raises(InputError, match=r"in\.jsonl: line 2 is not UTF-8: invalid start byte"):
        prepared(spec_of(path), tmp_path)


def test_a_key_that_cannot_name_queries_is_refused(tmp_path: Path) -> None:
    table = pa.table({"query_id": [["a"]], "query": ["a"], "document": ["x"]})
    with pytest.raises(InputError, match=r"'query_id' is list.*, which cannot be an id"):
        clustered(tmp_path, table)
