"""Timestamps as Spark, Impala and pandas write them, to the ends of what a part can hold."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from producer.inputs.source import read_source
from rankmill.errors import InputError
from rankmill.tables.files import read_files
from tests.support.inputs import pairs
from tests.support.shards import job_over, run_all

_JULIAN_EPOCH = 2_440_588
_PLACE = datetime(2000, 1, 2, 3, 4, 5)
_ENDS = [datetime(9999, 12, 31), datetime(1, 1, 1), None, datetime(2026, 1, 1, 0, 0, 0, 1)]


def int96_file(path: Path, times: pa.Array, **options: object) -> Path:
    table = pa.Table.from_pylist(pairs(1, len(times))).append_column("at", times)
    pq.write_table(table, path, use_deprecated_int96_timestamps=True, **options)
    return path


def put(path: Path, day: int, nanos: int) -> None:
    """Replace the value of _PLACE by a day, counted from the epoch, and a time of day."""

    def stored(day: int, nanos: int) -> bytes:
        return np.int64(nanos).tobytes() + np.int32(day + _JULIAN_EPOCH).tobytes()

    since = _PLACE - datetime(1970, 1, 1)
    content = path.read_bytes()
    before = stored(since.days, since.seconds * 10**9)
    assert content.count(before) == 1
    path.write_bytes(content.replace(before, stored(day, nanos)))


def test_the_first_and_the_last_day_come_through_as_microseconds(tmp_path: Path) -> None:
    source = int96_file(tmp_path / "in.parquet", pa.array(_ENDS, pa.timestamp("us")))
    assert pq.ParquetFile(source).metadata.schema.column(4).physical_type == "INT96"
    for options in ({}, {"keep_cols": ("doc_id", "at"), "shard_pairs": 2}):
        out = tmp_path / str(len(options))
        run_all(job_over(source, out, **options))
        found = pq.read_table(out / "out")
        assert found.schema.field("at").type == pa.timestamp("us")
        times = dict(zip(found["doc_id"].to_pylist(), found["at"].to_pylist(), strict=True))
        assert times == {f"d0-{n}": time for n, time in enumerate(_ENDS)}
        stored = pq.ParquetFile(out / "out/part-00000.parquet").metadata.schema
        column = stored.column(stored.names.index("at"))
        assert column.physical_type == "INT64" and "timeUnit=microseconds" in str(
            column.logical_type
        )


def test_nanoseconds_stay_where_they_came_in_as_such(tmp_path: Path) -> None:
    times = pa.array([1, None, 2**62], pa.timestamp("ns"))
    table = pa.Table.from_pylist(pairs(1, 3)).append_column("at", times)
    pq.write_table(table, tmp_path / "in.parquet")
    run_all(job_over(tmp_path / "in.parquet", tmp_path))
    found = pq.read_table(tmp_path / "out")
    assert found.schema.field("at").type == pa.timestamp("ns")
    assert sorted(found["at"].cast(pa.int64()).to_pylist(), key=str) == [1, 2**62, None]


@pytest.mark.parametrize(
    ("day", "nanos"),
    [
        (2**31 - 1 - _JULIAN_EPOCH, 0),
        (-(10**9), 0),
        (106_751_992, 0),
        (-106_751_993, 0),
        (0, 1),
        (10_957, 123_456_789),
    ],
)
def test_what_microseconds_cannot_hold_is_refused_by_file_row_and_column(
    tmp_path: Path, day: int, nanos: int
) -> None:
    times = pa.array([None, *_ENDS, _PLACE, None], pa.timestamp("us"))
    source = int96_file(tmp_path / "in.parquet", times, row_group_size=4, use_dictionary=False)
    put(source, day, nanos)
    with pytest.raises(
        InputError, match=r"in\.parquet, row 5: column 'at' is INT96 and has a time"
    ):
        run_all(job_over(source, tmp_path))
    run_all(job_over(source, tmp_path / "without", keep_cols=("doc_id",)))
    assert pq.read_table(tmp_path / "without/out").num_rows == 7


def test_the_last_microsecond_there_is_comes_through(tmp_path: Path) -> None:
    source = int96_file(
        tmp_path / "in.parquet", pa.array([_PLACE], pa.timestamp("us")), use_dictionary=False
    )
    put(source, 106_751_991, 14_454_775_807_000)
    run_all(job_over(source, tmp_path))
    assert pq.read_table(tmp_path / "out")["at"].cast(pa.int64()).to_pylist() == [2**63 - 1]


@pytest.mark.parametrize("nanos", [0, 1])
def test_times_in_lists_and_structs_too(tmp_path: Path, nanos: int) -> None:
    nested = pa.array(
        [{"a": [[_PLACE, None], []]}, None, {"a": None}],
        pa.struct([("a", pa.list_(pa.list_(pa.timestamp("us"))))]),
    )
    source = int96_file(tmp_path / "in.parquet", nested, use_dictionary=False)
    put(source, 2_932_896, nanos)
    found = read_source(str(source))
    tables = read_files(found.files, found.schema, ["at"], 0, 10, "fail")
    if nanos:
        with pytest.raises(InputError, match=r"in\.parquet: column 'at' is INT96"):
            list(tables)
    else:
        values = next(tables)["at"].to_pylist()
        assert values == [{"a": [[datetime(9999, 12, 31), None], []]}, None, {"a": None}]
