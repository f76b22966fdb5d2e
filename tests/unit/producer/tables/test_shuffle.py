"""Rows reordered through a scratch file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from producer.tables.shuffle import BLOCK_ROWS, Shuffle
from rankmill.tables.row_bytes import decoded_bytes

SCHEMA = pa.schema(
    [("n", pa.int64()), ("text", pa.dictionary(pa.int32(), pa.string())), ("n", pa.int8())]
)


def table_of(numbers: np.ndarray) -> pa.Table:
    text = pa.array(numbers.astype(str)).dictionary_encode()
    return pa.table([pa.array(numbers), text, pa.array(numbers % 100, pa.int8())], SCHEMA)


@pytest.mark.parametrize("gathered_bytes", [20_000, 200_000, 2**30])
def test_rows_are_in_order_with_nulls_where_none_was_added(
    tmp_path: Path, gathered_bytes: int
) -> None:
    n_rows = 3 * BLOCK_ROWS + 5
    given = np.random.default_rng(0).permutation(n_rows)
    given = given[(given % 10 != 3) & (given // BLOCK_ROWS != 1)]
    path = tmp_path / "rows"
    with Shuffle(path, SCHEMA, n_rows, gathered_bytes) as shuffle:
        for part in np.array_split(given, 20):
            shuffle.add(table_of(part), part)
        blocks = list(shuffle.blocks())
    if gathered_bytes == 2**30:
        assert [block.num_rows for block in blocks] == [BLOCK_ROWS] * 3 + [5]
    found = pa.concat_tables(blocks)
    assert found.schema.equals(SCHEMA)
    is_given = np.zeros(n_rows, bool)
    is_given[given] = True
    expected = pa.array(np.arange(n_rows), mask=~is_given)
    assert found.column(0).combine_chunks().equals(expected)
    assert found.column(1).to_pylist() == expected.cast(pa.string()).to_pylist()
    assert found.column(2).null_count == expected.null_count
    assert not path.exists()


def test_no_rows_give_no_tables(tmp_path: Path) -> None:
    with Shuffle(tmp_path / "rows", SCHEMA, 0) as shuffle:
        assert list(shuffle.blocks()) == []


def test_a_block_has_no_more_bytes_than_are_gathered_or_one_row(tmp_path: Path) -> None:
    n_rows, text, n_bytes = 1024, "x" * 60_000, 2**20
    longer = text * 20
    positions = np.random.default_rng(1).permutation(n_rows)
    schema = pa.schema([("n", pa.int64()), ("text", pa.string())])
    with Shuffle(tmp_path / "rows", schema, n_rows, n_bytes) as shuffle:
        for at in np.split(positions, 32):
            texts = [longer if position == 9 else text for position in at]
            shuffle.add(pa.table([pa.array(at), pa.array(texts)], schema), at)
        blocks = list(shuffle.blocks())
        assert [path.name for path in tmp_path.iterdir()] == ["rows"]
    assert all(block.num_rows == 1 or decoded_bytes(block) <= n_bytes for block in blocks)
    found = pa.concat_tables(blocks)
    assert found.schema == schema
    assert found["n"].to_pylist() == list(range(n_rows))
    assert [n for n, each in enumerate(found["text"].to_pylist()) if each != text] == [9]
    assert found["text"][9].as_py() == longer
