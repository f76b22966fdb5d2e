"""The DuckDB database: feeds, results, errors, isolation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from producer.tables.database import Database, Feed
from rankmill.errors import InputError, StorageRefused

SCHEMA = pa.schema([("n", pa.int64()), ("text", pa.large_string())])
QUERY = "select * from feed order by hash(n)"


def tables(n_tables: int) -> Iterator[pa.Table]:
    for n in range(n_tables):
        numbers = np.arange(n * 1000, (n + 1) * 1000)
        yield pa.table([numbers, pa.array(np.char.ljust(numbers.astype(str), 200, "x"))], SCHEMA)


def test_a_query_on_a_feed_returns_small_tables(tmp_path: Path) -> None:
    with Database(tmp_path, "200MB") as database:
        found = list(database.tables(QUERY, Feed(SCHEMA, tables(20))))
        assert max(table.num_rows for table in found) <= 2048
        whole = pa.concat_tables(found)
        assert whole.schema == SCHEMA
        assert sorted(whole["n"].to_pylist()) == list(range(20_000))
        database.run("create table kept as select * from feed", Feed(SCHEMA, tables(3)))
        assert database.rows("select count(*) from kept") == [(3000,)]


def test_an_error_of_the_feed_is_the_one_that_is_raised(tmp_path: Path) -> None:
    def broken() -> Iterator[pa.Table]:
        yield from tables(3)
        raise InputError("the third file is damaged")

    with Database(tmp_path) as database:
        for ask in (database.run, database.rows, lambda *it: list(database.tables(*it))):
            with pytest.raises(InputError, match=r"^the third file is damaged$"):
                ask(QUERY, Feed(SCHEMA, broken()))


def test_too_little_memory_is_a_one_line_error(tmp_path: Path) -> None:
    with Database(tmp_path, "2MB") as database, pytest.raises(StorageRefused) as refused:
        list(database.tables(QUERY, Feed(SCHEMA, tables(100))))
    assert str(refused.value).startswith("cannot prepare the input: Out of Memory Error")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("folder", [None, "scratch"])
def test_nothing_but_the_database_can_be_reached(tmp_path: Path, folder: str | None) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "a.csv").write_text("n\n1\n")
    table = pa.table({"n": [1]})  # a variable is not found by its name
    with Database(folder and tmp_path / folder) as database:
        for query in (
            f"select * from read_csv('{tmp_path}/a.csv')",
            "select * from table_of_python",
            "load httpfs",
            "install httpfs",
        ):
            with pytest.raises(duckdb.Error):
                database.rows(query.replace("table_of_python", '"table"'))
        assert database.rows("select current_setting('enable_progress_bar')") == [(False,)]
    assert table.num_rows == 1
