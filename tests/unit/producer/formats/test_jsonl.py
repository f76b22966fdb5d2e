"""JSONL as typed rows."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.formats.jsonl import json_rows
from producer.tables.database import Database
from rankmill import storage
from rankmill.contract.plan import InputFile
from rankmill.errors import InputError
from tests.support.prepared import write_jsonl, write_lines

SCALARS = st.none() | st.booleans() | st.sampled_from([1, -1, 2**40, 1.5, "text", "007"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("xy"), inner, min_size=1)
    ),
    max_leaves=4,
)


def input_file(path: Path) -> InputFile:
    file = storage.stat(str(path))
    return InputFile(uri=file.uri, n_rows=0, size_bytes=file.size_bytes, state=file.state)


@settings(max_examples=60)
@given(rows=st.lists(st.dictionaries(st.sampled_from("abc"), VALUES), max_size=5).filter(any))
def test_types_do_not_depend_on_where_blocks_end(rows: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder, Database() as database:
        whole = write_jsonl(Path(folder, "whole"), rows)
        parts = [write_jsonl(Path(folder, str(n)), [row]) for n, row in enumerate(rows)]
        one = json_rows((input_file(whole),), database)
        many = json_rows(tuple(map(input_file, parts)), database)
        assert many.schema == one.schema
        names = one.schema.names
        found = pa.concat_tables(many.tables(names)).select(names)
        assert found.equals(pa.concat_tables(one.tables(names)).select(names))


def test_objects_without_keys_in_a_block_of_their_own_stay_as_they_are(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"a": {}}, {"a": {"k": 1}}, {}, {"a": None}]
    files = [write_jsonl(tmp_path / str(n), [row]) for n, row in enumerate(rows)]
    with Database() as database:
        found = json_rows(tuple(map(input_file, files)), database)
        values = [value for table in found.tables(["a"]) for value in table["a"].to_pylist()]
    assert values == ["{}", '{"k":1}', None, None]


def test_memory_is_bounded(tmp_path: Path) -> None:
    """DuckDB needs several times the bytes of the lines to find their types."""
    line = json.dumps({"_id": "d1", "text": "word " * 200})
    path = write_lines(tmp_path / "corpus.jsonl", [line] * 100_000)
    assert path.stat().st_size > 100e6
    with Database(memory_limit="150MB") as database:
        rows = json_rows((input_file(path),), database)
        assert sum(table.num_rows for table in rows.tables(["_id", "text"])) == 100_000


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["123456789012345678901", "1"], "123456789012345678901, which as a float is 1234567890"),
        (["9007199254740993", "0.5"], "9007199254740993, which as a float is 9007199254740992;"),
        (['[{"id": 9007199254740993}]', '[{"id": 0.5}]'], "'a' has 9007199254740993, which as"),
        (["18446744073709551615"], "18446744073709551615 not in range"),
    ],
)
def test_integers_that_would_change_are_refused(
    tmp_path: Path, values: list[str], message: str
) -> None:
    path = write_lines(tmp_path / "in.jsonl", [f'{{"a": {value}}}' for value in values])
    with Database() as database, pytest.raises(InputError, match=rf"lines 1 to \d: .*{message}"):
        list(json_rows((input_file(path),), database).tables(["a"]))


def test_floats_are_read_as_they_are(tmp_path: Path) -> None:
    values = ["0.1", "1", "9007199254740992", "1e20", "-0.5e-300", "100000000000000000000", "null"]
    path = write_lines(tmp_path / "in.jsonl", [f'{{"a": {value}}}' for value in values])
    with Database() as database:
        [table] = json_rows((input_file(path),), database).tables(["a"])
    assert table["a"].to_pylist() == [0.1, 1, 2**53, 1e20, -0.5e-300, 1e20, None]


@pytest.mark.parametrize("column", ["document", "a/b~c'd\"$.e"])
def test_values_that_are_not_strings_are_refused_as_texts(tmp_path: Path, column: str) -> None:
    values: list[Any] = ["fine", {"title": "x"}, 17, None, ["a"], "17", True, ""]
    rows = [{"query": "q", "id": n, column: value} for n, value in enumerate(values)]
    files = [write_jsonl(tmp_path / str(n), [row]) for n, row in enumerate([*rows, {"query": 1}])]
    with Database() as database:
        texts = {"query": "query", "document": column}
        found = json_rows(tuple(map(input_file, files)), database, texts)
        table = pa.concat_tables(found.tables([column]))
    assert table["_refusal"].to_pylist() == [
        "document is not text" if n in (1, 2, 4, 6) else None for n in range(len(values))
    ] + ["query is not text"]
    assert table[column].to_pylist()[:5] == ["fine", '{"title":"x"}', "17", None, '["a"]']


@pytest.mark.parametrize("only_beginning", [True, False])
def test_files_without_a_line_are_passed_over_unless_all_are(
    tmp_path: Path, only_beginning: bool
) -> None:
    contents: list[list[str]] = [[], [" "], ["{}"], ['{"a": 1}'], []]
    files = tuple(
        input_file(write_lines(tmp_path / f"{n}.jsonl", lines)) for n, lines in enumerate(contents)
    )
    with Database() as database:
        rows = json_rows(files, database, only_beginning=only_beginning)
        assert rows.schema.names == ["a"]
        assert sum(table.num_rows for table in rows.tables(["a"])) == 2
        with pytest.raises(InputError, match=r"0\.jsonl: no line of it or of 2 more files has"):
            json_rows(files[:3], database, only_beginning=only_beginning)
        with pytest.raises(InputError, match=r"0\.jsonl: no line of it has a key"):
            json_rows(files[:1], database, only_beginning=only_beginning)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"": 1}', 'the key "" cannot name a column'),
        ('{"a": [{"b\\u0000c": 1}]}', r'the key "b\\u0000c" cannot name a column'),
        (f'{{"a": {"[" * 51}{"]" * 51}}}', "nested more than 50 deep"),
        (f'{{"a": {"[" * 999}{"]" * 999}}}', "JSON exceeds maximum recursion depth of 128"),
    ],
)
@pytest.mark.parametrize("only_beginning", [True, False])
def test_values_that_no_column_can_hold_are_refused(
    tmp_path: Path, line: str, message: str, only_beginning: bool
) -> None:
    path = write_lines(tmp_path / "in.jsonl", ['{"a": null}', line])
    with (
        Database() as database,
        pytest.raises(InputError, match=rf"jsonl: lines 1 to 2: {message}$"),
    ):
        json_rows((input_file(path),), database, only_beginning=only_beginning)


@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a": ', "}")])
def test_deep_nesting_is_read(tmp_path: Path, begin: str, end: str) -> None:
    line = f'{{"a": {begin * 49}1.5{end * 49}}}'
    path = write_lines(tmp_path / "in.jsonl", [line])
    with Database() as database:
        [table] = json_rows((input_file(path),), database).tables(["a"])
    assert json.dumps(table.select(["a"]).to_pylist()[0]) == line
