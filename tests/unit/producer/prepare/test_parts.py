"""The files of a prepared dataset."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from producer.prepare.parts import write_parts

SCHEMA = pa.schema([("n", pa.int64()), ("text", pa.large_string())])


def groups_of(path: Path) -> list[int]:
    metadata = pq.read_metadata(path)
    return [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]


def test_parts_have_a_million_rows_and_small_row_groups(tmp_path: Path) -> None:
    n_rows = 64 * 16384 + 20_000
    table = pa.table([range(n_rows), pa.repeat("x", n_rows).cast(pa.large_string())], SCHEMA)
    pieces = [table.slice(0, 5), table.slice(5, 100_000), table.slice(100_005)]
    write_parts(str(tmp_path), SCHEMA, pieces)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "part-00000.parquet",
        "part-00001.parquet",
    ]
    assert groups_of(tmp_path / "part-00000.parquet") == [16384] * 64
    assert groups_of(tmp_path / "part-00001.parquet") == [16384, 20_000 - 16384]
    assert ds.dataset(tmp_path).to_table()["n"].to_pylist() == list(range(n_rows))
    column = pq.read_metadata(tmp_path / "part-00000.parquet").row_group(0).column(0)
    assert column.compression == "ZSTD"


def test_row_groups_of_long_texts_are_smaller(tmp_path: Path) -> None:
    table = pa.table([range(100), pa.repeat("x" * 2**20, 100).cast(pa.large_string())], SCHEMA)
    write_parts(str(tmp_path), SCHEMA, [table.slice(n, 1) for n in range(100)])
    assert groups_of(tmp_path / "part-00000.parquet") == [64, 36]


def test_no_rows_are_one_empty_part_with_the_columns(tmp_path: Path) -> None:
    write_parts(str(tmp_path), SCHEMA, [])
    assert pq.read_table(tmp_path / "part-00000.parquet").equals(SCHEMA.empty_table())
