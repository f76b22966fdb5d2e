"""How Parquet is read; what it gives is tested with the storage, and by every job."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankmill import storage
from rankmill.errors import InputError
from rankmill.tables import parquet
from rankmill.tables.read_size import rows_at_once

_READING = """
import os, sys
from rankmill import storage
from rankmill.tables import parquet

storage.is_local = lambda uri: sys.argv[2] == "disk"
before = os.listdir("/proc/self/task")
assert sum(t.num_rows for t in parquet.read_rows(storage.stat(sys.argv[1]), ["a", "c"], 0, 999))
print(len(os.listdir("/proc/self/task")) - len(before))
"""


@pytest.mark.parametrize("where", ["disk", "elsewhere"])
def test_reading_starts_no_threads_which_might_abort_the_process_at_its_end(
    tmp_path: Path, where: str
) -> None:
    table = pa.table({name: np.arange(50_000) for name in "abc"})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=20_000)
    command = [sys.executable, "-c", _READING, tmp_path / "t.parquet", where]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "0\n"


def test_rows_are_counted_where_no_column_is_asked_for(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": range(10)}), tmp_path / "t.parquet", row_group_size=6)
    tables = parquet.read_rows(storage.stat(str(tmp_path / "t.parquet")), [], 2, 3)
    assert [table.num_rows for table in tables] == [1, 3, 3, 1]


_READING_ALL = r"""
import re, sys
from pathlib import Path
from rankmill import storage
from rankmill.tables import parquet
from rankmill.errors import InputError

tables = parquet.read_rows(storage.stat(sys.argv[1]), ["a", "b"], 0, 4096)
n_rows = sum(t.num_rows for t in tables)
peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
print(n_rows, int(peak[1]) // 1024)
"""
_LARGE = "x" * (4 * 2**20)
_N_ROWS = 256


# Each is made in its test: together they take a gigabyte, in every process that collects them.
_SMALL_FILES: dict[str, Callable[[], pa.Array]] = {
    "one value": lambda: _of_codes([0] * _N_ROWS, [_LARGE]),
    "after small ones": lambda: _of_codes([0] * 4200 + [1] * _N_ROWS, ["x", _LARGE]),
    "in lists": lambda: pa.ListArray.from_arrays(
        pa.array(range(_N_ROWS + 1), pa.int32()), _of_codes([0] * _N_ROWS, [_LARGE])
    ),
    "fixed width": lambda: pa.nulls(_N_ROWS, pa.binary(len(_LARGE))),
}


def _of_codes(codes: list[int], values: list[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(values))


@pytest.mark.parametrize("kind", _SMALL_FILES)
def test_a_small_file_whose_rows_are_large_is_read_in_bounded_memory(
    tmp_path: Path, kind: str
) -> None:
    column = _SMALL_FILES[kind]()
    path = tmp_path / "t.parquet"
    table = pa.table({"a": pa.nulls(len(column), pa.int8()), "b": column})
    pq.write_table(
        table,
        path,
        compression="zstd",
        dictionary_pagesize_limit=2**30,
        write_statistics=False,
        store_schema=False,
    )
    assert path.stat().st_size < 10_000
    command = [sys.executable, "-c", _READING_ALL, path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    n_rows, peak_mib = map(int, done.stdout.split())
    assert n_rows == len(column)
    assert peak_mib < 700


def test_prefixes_that_are_left_out_count(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table = pa.table({"a": [_LARGE + str(n) for n in range(8)]})
    encoding = {"a": "DELTA_BYTE_ARRAY"}
    pq.write_table(table, path, use_dictionary=False, column_encoding=encoding)
    with path.open("rb") as content:
        assert rows_at_once(str(path), content, pq.read_metadata(path), 0, [0]) == 63


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: pa.nulls(1, pa.binary(2**26 + 1)),
            "'b' has values of 67108865 bytes; write it as",
        ),
        (
            lambda: pa.ListArray.from_arrays(
                pa.array([0, 2**24 + 1], pa.int32()), pa.nulls(2**24 + 1)
            ),
            "'b.list.element' has 16777217 values a row, more than 16777216",
        ),
    ],
    ids=["width", "items"],
)
def test_one_row_that_is_larger_than_any_memory_is_refused(
    tmp_path: Path, make: Callable[[], pa.Array], message: str
) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [1], "b": make()}), path, write_statistics=False)
    with pytest.raises(InputError, match=rf"t\.parquet: row group 0: column {message}"):
        list(parquet.read_rows(storage.stat(str(path)), None, 0, 10))
    assert [t.num_rows for t in parquet.read_rows(storage.stat(str(path)), ["a"], 0, 10)] == [1]


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "brotli", "zstd", "lz4"])
def test_a_large_dictionary_of_short_texts_is_read_many_rows_at_a_time(
    tmp_path: Path, codec: str
) -> None:
    texts = [f"document {n}" for n in range(20_000)]
    pq.write_table(pa.table({"a": texts}), tmp_path / "t.parquet", compression=codec)
    metadata = pq.read_metadata(tmp_path / "t.parquet")
    assert metadata.row_group(0).column(0).dictionary_page_offset is not None
    with (tmp_path / "t.parquet").open("rb") as file:
        assert rows_at_once("t.parquet", file, metadata, 0, [0]) > 1_000_000
