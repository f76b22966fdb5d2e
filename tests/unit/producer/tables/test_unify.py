"""Files of one input that differ in their columns' types, or lack columns."""

from __future__ import annotations

import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.inputs.source import read_source
from producer.jobs.check import check
from producer.tables.unify import common_type
from rankmill.contract.job import JobSpec
from rankmill.contract.plan import REFUSAL_COLUMN
from rankmill.errors import InputError
from rankmill.tables.files import read_files
from tests.support.inputs import pairs
from tests.support.shards import job_over, run_all

INT, TEXT = pa.int64(), pa.string()


def write_files(folder: Path, *columns: pa.Array | None, name: str = "n") -> Path:
    """Write a file of pairs for each column, or without a column for None."""
    folder.mkdir(exist_ok=True)
    for number, column in enumerate(columns):
        rows = pairs(number + 1, 1)[-1:] * (2 if column is None else len(column))
        table = pa.Table.from_pylist([{**row, "doc_id": f"{n}"} for n, row in enumerate(rows)])
        if column is not None:
            table = table.append_column(name, column)
        pq.write_table(table, folder / f"{number}.parquet")
    return folder


def read(source: Path, name: str = "n") -> pa.ChunkedArray:
    found = read_source(str(source))
    tables = list(read_files(found.files, found.schema, None, 0, 3, "fail"))
    assert all(table.schema.names[-1] == REFUSAL_COLUMN for table in tables)
    return pa.concat_tables(tables)[name]


def list_of(kind: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("item", kind))


UNIFIED = [
    (pa.string(), pa.large_string(), pa.large_string()),
    (pa.string_view(), pa.string(), pa.large_string()),
    (pa.dictionary(pa.int8(), TEXT), TEXT, TEXT),
    (pa.dictionary(pa.int8(), TEXT), pa.dictionary(pa.int32(), TEXT), TEXT),
    (pa.binary(), pa.large_binary(), pa.large_binary()),
    (pa.binary(2), pa.binary(3), pa.binary()),
    (pa.int32(), INT, INT),
    (pa.int8(), pa.uint8(), pa.int16()),
    (pa.uint32(), pa.int32(), INT),
    (pa.uint32(), pa.uint64(), pa.uint64()),
    (pa.float32(), pa.float64(), pa.float64()),
    (pa.float16(), pa.float32(), pa.float32()),
    (pa.null(), pa.map_(TEXT, INT), pa.map_(TEXT, INT)),
    (pa.null(), pa.list_view(INT), pa.list_view(INT)),
    (pa.decimal128(5, 2), pa.decimal128(9, 4), pa.decimal128(9, 4)),
    (pa.decimal128(38, 0), pa.decimal128(3, 3), pa.decimal256(41, 3)),
    (pa.timestamp("ms", "UTC"), pa.timestamp("us", "UTC"), pa.timestamp("us", "UTC")),
    (pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("ns")),
    (pa.time32("ms"), pa.time64("ns"), pa.time64("ns")),
    (pa.duration("ms"), pa.duration("us"), pa.duration("us")),
    (pa.list_(pa.int32()), pa.large_list(INT), pa.large_list(INT)),
    (pa.list_(pa.int32(), 2), pa.list_(INT), pa.list_(INT)),
    (
        pa.struct([("a", pa.int8()), ("b", TEXT)]),
        pa.struct([("b", pa.large_string()), ("a", pa.int16())]),
        pa.struct([("a", pa.int16()), ("b", pa.large_string())]),
    ),
    (pa.map_(TEXT, pa.int8()), pa.map_(TEXT, pa.int32()), pa.map_(TEXT, pa.int32())),
]

REFUSED = [
    (INT, pa.float64()),
    (pa.int32(), pa.float64()),
    (INT, TEXT),
    (TEXT, pa.binary()),
    (pa.uint64(), INT),
    (INT, pa.bool_()),
    (INT, pa.decimal128(20, 0)),
    (pa.decimal256(76, 0), pa.decimal128(3, 3)),
    (pa.timestamp("us"), pa.timestamp("us", "UTC")),
    (pa.timestamp("us", "Europe/Berlin"), pa.timestamp("us", "UTC")),
    (pa.timestamp("us"), pa.date32()),
    (pa.date32(), TEXT),
    (pa.list_(INT), pa.list_(TEXT)),
    (pa.struct([("a", INT)]), pa.struct([("b", INT)])),
    (pa.dictionary(pa.int8(), TEXT), INT),
]


@pytest.mark.parametrize(("one", "other", "wanted"), UNIFIED)
def test_types_are_unified_whichever_file_comes_first(
    one: pa.DataType, other: pa.DataType, wanted: pa.DataType, tmp_path: Path
) -> None:
    columns = [pa.nulls(2, kind) for kind in (one, other)]
    for number, order in enumerate((columns, columns[::-1])):
        found = read(write_files(tmp_path / str(number), *order))
        assert found.null_count == 4
        if number == 0 or not pa.types.is_struct(
            wanted
        ):  # a struct's fields are in the first file's order
            assert found.type == wanted


@pytest.mark.parametrize(("one", "other"), REFUSED)
def test_types_with_no_type_in_common_are_refused_by_file_and_column(
    one: pa.DataType, other: pa.DataType, tmp_path: Path
) -> None:
    source = write_files(tmp_path / "in", pa.nulls(1, one), None, pa.nulls(1, other))
    with pytest.raises(InputError) as refusal:
        read_source(str(source))
    assert str(refusal.value).startswith(f"{source}/2.parquet: column 'n' is ")
    assert f" in {source}/0.parquet; write it with one type in all files" in str(refusal.value)


NUMBERS = st.one_of(
    *(
        st.tuples(
            st.just(kind), st.lists(st.none() | st.integers(low, high), min_size=1, max_size=4)
        )
        for kind, low, high in [
            (pa.int8(), -(2**7), 2**7 - 1),
            (pa.uint8(), 0, 2**8 - 1),
            (pa.int32(), -(2**31), 2**31 - 1),
            (pa.uint32(), 0, 2**32 - 1),
            (INT, -(2**63), 2**63 - 1),
            (pa.uint64(), 0, 2**64 - 1),
            (pa.timestamp("ms"), -(2**40), 2**40),
            (pa.timestamp("us"), -(2**63), 2**63 - 1),
            (pa.timestamp("ns"), -(2**63), 2**63 - 1),
            (pa.duration("us"), -(2**63), 2**63 - 1),
            (pa.duration("ns"), -(2**63), 2**63 - 1),
            (pa.time32("ms"), 0, 86_399_999),
            (pa.time64("ns"), 0, 86_399_999_999_999),
            (pa.date32(), -(2**31), 2**31 - 1),
        ]
    ),
    *(
        st.tuples(
            st.just(kind), st.lists(st.none() | st.floats(width=width), min_size=1, max_size=4)
        )
        for kind, width in ((pa.float16(), 16), (pa.float32(), 32), (pa.float64(), 64))
    ),
    *(
        st.tuples(
            st.just(pa.decimal128(p, s)),
            st.lists(
                st.integers(-(10**p) + 1, 10**p - 1).map(lambda n, s=s: Decimal(n).scaleb(-s)),
                min_size=1,
            ),
        )
        for p, s in ((3, 0), (9, 4), (20, 20))
    ),
    *(
        st.tuples(st.just(kind), st.lists(st.none() | st.text(max_size=3), min_size=1, max_size=4))
        for kind in (TEXT, pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), TEXT))
    ),
    st.tuples(st.just(pa.null()), st.lists(st.none(), min_size=1, max_size=3)),
)
_PER_SECOND = {"ms": 10**3, "us": 10**6, "ns": 10**9}


def plain_values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """Values that Python compares exactly: times as nanoseconds, NaN as a name."""
    kind = column.type
    if pa.types.is_temporal(kind) and not pa.types.is_date(kind):
        times = column.cast(pa.int32()) if kind.bit_width == 32 else column
        factor = 10**9 // _PER_SECOND[kind.unit]
        return [None if n is None else n * factor for n in times.cast(INT).to_pylist()]
    if pa.types.is_date(kind):
        days = column.cast(pa.date32()).cast(pa.int32())
        return list(days.to_pylist())
    return ["nan" if value != value else value for value in column.to_pylist()]


@settings(max_examples=150, deadline=None)
@given(one=NUMBERS, other=NUMBERS, nested=st.booleans())
def test_values_are_read_back_equal_or_refused(
    one: tuple[pa.DataType, list[Any]], other: tuple[pa.DataType, list[Any]], nested: bool
) -> None:
    columns = [pa.array(values, kind) for kind, values in (one, other)]
    lists = columns
    if nested:
        lists = [pa.ListArray.from_arrays([0, len(column)], column) for column in columns]
    with tempfile.TemporaryDirectory() as folder:
        source = write_files(Path(folder) / "in", *lists)
        stored = [pq.read_table(path)["n"] for path in sorted(source.iterdir())]
        stored = [each.combine_chunks().flatten() if nested else each for each in stored]
        try:
            found = read(source)
        except InputError as error:
            assert "column 'n'" in str(error)
            return
    values = found.combine_chunks().flatten() if nested else found
    assert plain_values(values) == [value for each in stored for value in plain_values(each)]


def test_a_value_beyond_the_common_unit_is_named_by_file_row_and_column(tmp_path: Path) -> None:
    times = [pa.array([0, 2**60], pa.timestamp("us")), pa.array([1], pa.timestamp("ns"))]
    wanted = r"0\.parquet, row 1: column 'n' \(timestamp\[us\]\) has <value out of range: 115292"
    with pytest.raises(InputError, match=wanted):
        read(write_files(tmp_path / "in", *times))


def test_a_common_type_is_the_same_from_both_sides() -> None:
    kinds = [kind for pair in (*UNIFIED, *REFUSED) for kind in pair[:2]]
    for one in kinds:
        for other in kinds:
            if not pa.types.is_struct(one):
                assert common_type(one, other) == common_type(other, one)


def test_columns_go_by_name_and_a_missing_one_is_null(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(pairs(2, 3))
    source = tmp_path / "in"
    source.mkdir()
    with_lang = table.slice(3).append_column("lang", pa.array(["de"] * 3))
    pq.write_table(table.slice(0, 3), source / "0.parquet")
    pq.write_table(with_lang.select([*reversed(with_lang.column_names)]), source / "1.parquet")
    run_all(job_over(source, tmp_path))
    found = pq.read_table(tmp_path / "out")
    assert found.column_names[:3] == ["query_id", "doc_id", "lang"]
    langs = dict(zip(found["doc_id"].to_pylist(), found["lang"].to_pylist(), strict=True))
    assert langs == {f"d{q}-{c}": "de" if q else None for q in (0, 1) for c in (0, 1, 2)}


@pytest.mark.parametrize("options", [{}, {"cluster": True}])
@pytest.mark.parametrize("name", ["query", "document", "query_id", "doc_id"])
def test_a_text_or_an_id_that_one_file_lacks_is_refused(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    table = pa.Table.from_pylist(pairs(2, 3))
    pq.write_table(table.slice(0, 3), tmp_path / "0.parquet")
    pq.write_table(table.slice(3).drop_columns([name]), tmp_path / "1.parquet")
    job = JobSpec(
        input_uri=f"{tmp_path}/*.parquet", output_uri=f"{tmp_path}/out", model_id="null", **options
    )
    with pytest.raises(InputError, match=rf"1\.parquet: column '{name}' is missing, which .*0\.pa"):
        check(job)
