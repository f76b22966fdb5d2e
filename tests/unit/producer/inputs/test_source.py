"""The columns and the files of an input."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from producer.inputs.columns import resolve_columns
from producer.inputs.source import read_source
from rankmill.contract.job import JobSpec
from rankmill.errors import InputError
from tests.support.inputs import pairs, write

TEXTS = [("query", pa.string()), ("document", pa.string())]
IDS = [("query_id", pa.string()), ("doc_id", pa.int64())]


def spec(**options: object) -> JobSpec:
    return JobSpec(input_uri="in", output_uri="out", **options)


def test_texts_are_dropped_when_ids_are_there_and_kept_when_not() -> None:
    with_ids = resolve_columns(spec(), pa.schema([*TEXTS, *IDS]))
    assert list(with_ids.kept) == ["query_id", "doc_id"]
    assert with_ids.group_key == "query_id"
    without = resolve_columns(spec(), pa.schema(TEXTS))
    assert list(without.kept) == ["query", "document"]
    assert without.group_key == "query"


def test_an_input_column_named_as_a_result_column_gets_a_prefix() -> None:
    columns = resolve_columns(spec(), pa.schema([*TEXTS, *IDS, ("score", pa.float64())]))
    assert columns.kept["score"] == "input_score"


@pytest.mark.parametrize(
    ("options", "schema", "message"),
    [
        ({}, [("query", pa.string())], "'document' is missing; the columns there are: query"),
        ({}, [("query", pa.int64()), TEXTS[1]], "'query' is int64, not text"),
        ({"query_id_col": "qid"}, TEXTS, "'qid' is missing"),
        ({"query_id_col": "q"}, [*TEXTS, ("q", pa.struct([]))], r"'q' is struct<>, which cannot"),
        ({}, [*TEXTS, ("doc_id", pa.list_(pa.int64()))], r"'doc_id' is list<.*>, which cannot be"),
        ({}, [*TEXTS, ("query_id", pa.map_(pa.int8(), pa.int8()))], "which cannot be an id"),
        ({}, [*TEXTS, *IDS, *IDS], "'query_id' is twice"),
        ({"keep_cols": ("query",)}, [*TEXTS, *IDS, ("n", pa.int8()), ("n", pa.int8())], "n' is tw"),
        ({"layout": "lists"}, [*TEXTS, ("candidates", pa.int8())], "'candidates' would be written"),
        ({"layout": "lists", "trec_run": True}, [*TEXTS, *IDS], "--trec-run needs --explode"),
        ({"keep_cols": ("nope",)}, TEXTS, "'nope' is missing"),
        ({"keep_cols": ("query", "query")}, TEXTS, "would be written twice"),
        ({}, [*TEXTS, ("score", pa.float32()), ("input_score", pa.float32())], "written twice"),
    ],
)
def test_columns_that_cannot_be_used_are_named(
    options: dict[str, object], schema: list[tuple[str, pa.DataType]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        resolve_columns(spec(**options), pa.schema(schema))


def test_a_column_candidates_collides_with_lists_alone() -> None:
    other = ("candidates", pa.string())
    for options in ({}, {"layout": "lists", "explode": True}):
        assert "candidates" in resolve_columns(spec(**options), pa.schema([*TEXTS, other])).kept
    text = spec(layout="lists", document_col="candidates")
    assert "candidates" in resolve_columns(text, pa.schema([TEXTS[0], other])).kept


def test_a_folder_is_read_in_order_of_name_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b.parquet", "a.parquet", "_rankmill/x.parquet", ".hidden.parquet"):
        write(pairs(1, 2), tmp_path / name)
    source = read_source(str(tmp_path))
    assert [Path(file.uri).name for file in source.files] == ["a.parquet", "b.parquet"]
    assert source.n_rows == 4


def test_files_that_differ_are_named_with_the_column(tmp_path: Path) -> None:
    write(pairs(1, 2), tmp_path / "a.parquet")
    write([{**row, "doc_id": 7} for row in pairs(1, 2)], tmp_path / "b.parquet")
    with pytest.raises(InputError, match=r"b\.parquet: column 'doc_id' is int64, but string"):
        read_source(str(tmp_path))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("", {"day": 1, "lang": "de"}),
        ("day=1", {"lang": "de"}),
        ("day=*", {"day": 1, "lang": "de"}),
        ("*/lang=de/*.parquet", {"day": 1, "lang": "de"}),
        ("day=1/lang=[de][de]/in.parquet", {"lang": "de"}),
        ("day=1/lang=de/*.parquet", {}),
        ("day=1/lang=de/in.parquet", {}),
        ("../brackets[1]/year=2026", {}),
    ],
)
def test_only_folders_below_the_named_place_give_columns(
    tmp_path: Path, given: str, wanted: dict[str, object]
) -> None:
    folder = tmp_path / "year=2026"
    write(pairs(1, 2), folder / "day=1" / "lang=de" / "in.parquet")
    write(pairs(1, 2), tmp_path / "brackets[1]" / "year=2026" / "in.parquet")
    source = read_source(f"{folder}/{given}")
    assert source.files[0].partition == wanted
    assert source.schema.names == [*pairs(1, 1)[0], *wanted]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (["7", "12"], [7, 12]),
        (["-7", "0"], [-7, 0]),
        (["007", "12"], ["007", "12"]),
        (["+7", "12"], ["+7", "12"]),
        (["-0", "12"], ["-0", "12"]),
        (["1" * 18, "2"], [int("1" * 18), 2]),
        (["1" * 19, "2"], ["1" * 19, "2"]),
        (["\u0663", "2"], ["\u0663", "2"]),
        (["1.0", "2"], ["1.0", "2"]),
        (["%2B7", "a%2Fb"], ["+7", "a/b"]),
        (["__HIVE_DEFAULT_PARTITION__", "7"], [None, 7]),
        (["__HIVE_DEFAULT_PARTITION__", "007"], [None, "007"]),
    ],
)
def test_a_folders_value_is_a_number_only_if_nothing_is_lost(
    tmp_path: Path, values: list[str], wanted: list[object]
) -> None:
    for value in values:
        write(pairs(1, 2), tmp_path / f"%6Eight={value}" / "in.parquet")
    source = read_source(str(tmp_path))
    found = {Path(file.uri).parts[-2][8:]: file.partition["night"] for file in source.files}
    assert found == dict(zip(values, wanted, strict=True))
    is_number = any(isinstance(value, int) for value in wanted)
    assert source.schema.field("night").type == (pa.int64() if is_number else pa.string())


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["day=1/day=2"], "two folders give the column 'day'; rename one"),
        (["day=%FF"], "a folder's name is not UTF-8 after unquoting its %"),
    ],
)
def test_folders_that_would_lose_a_value_are_refused(
    tmp_path: Path, folders: list[str], message: str
) -> None:
    for folder in folders:
        write(pairs(1, 2), tmp_path / folder / "in.parquet")
    with pytest.raises(InputError, match=message):
        read_source(str(tmp_path))


def test_a_column_comes_from_all_folders_or_from_all_files(tmp_path: Path) -> None:
    rows = pairs(2, 2)
    write(rows[:2], tmp_path / "doc_id=1" / "in.parquet")
    write(
        [{k: v for k, v in row.items() if k != "doc_id"} for row in rows],
        tmp_path / "doc_id=2" / "in.parquet",
    )
    with pytest.raises(
        InputError, match=r"doc_id=2/in\.parquet: column 'doc_id' comes from its fold"
    ):
        read_source(str(tmp_path))
