"""An output is one dataset to every reader of folders: the same rows, of the same types.

Each job is done here in all its steps, with everything that leaves files outside of the parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from producer.jobs.prepare_job import prepare_job
from producer.jobs.submit import submit
from rankmill.dispatch import Dispatcher
from rankmill.ledger.jobs import Ledger
from rankmill.output.output import Output
from rankmill.settings import settings
from tests.conftest import forget_settings
from tests.support.inputs import control, pairs, write
from tests.support.prepared import write_jsonl, write_lines
from tests.support.programs import program
from worker import models
from worker.finalize import finalize
from worker.shard.run import run_shard
from worker.shard.score import ShardWork

# Of ids and texts, none of which these types' columns are.
CARRIED = {
    "dictionary": pa.array(["x", None, "x", "y"]).dictionary_encode(),
    "large": pa.array(["x", None, "", "y"], pa.large_string()),
    "view": pa.array(["x", None, "", "a string too long to be inlined"], pa.string_view()),
    "binary": pa.array([b"\xff", None, b"", b"y"]),
    "micros": pa.array(
        [datetime(2026, 1, 1), None, datetime(1970, 1, 1), None], pa.timestamp("us")
    ),
    "utc": pa.array(
        [datetime(2026, 1, 1, tzinfo=UTC), None, None, None], pa.timestamp("us", "UTC")
    ),
    "date": pa.array([date(2026, 1, 1), None, date(1, 1, 1), date(9999, 12, 31)]),
    "decimal": pa.array([Decimal("1.50"), None, Decimal("-9.99"), Decimal(0)], pa.decimal128(9, 2)),
    "long": pa.array([2**62, None, -1, 0]),
    "double": pa.array([0.1, None, -0.5, 1e300]),
    "flag": pa.array([True, None, False, True]),
    "list": pa.array([["x", None], None, [], ["y"]], pa.list_(pa.string())),
    "struct": pa.array([{"a": 1, "B": ["x"]}, None, {"a": None, "B": None}, {"a": 2, "B": []}]),
    "Score": pa.array([1, 2, 3, 4]),  # called like a column that is added, but for its case
    "rank": pa.array([4, 3, 2, 1]),
}


def job_inputs(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the options of each job by its name; a later one may reuse an earlier output."""
    rows = pairs(6, 7)
    rejected = [{**row, "document": ""} if n == 9 else row for n, row in enumerate(rows)]
    lists = [
        {
            "query_id": f"q{q}",
            "query": f"query {q}",
            "docs": [{"id": f"d{q}-{n}", "text": "a " * (n + 1), "at": n} for n in range(q)],
        }
        for q in range(4)
    ]
    for day in ("2026-11-27", "2026-11-28"):
        day_rows = [{**row, "query_id": f"{day}-{row['query_id']}"} for row in rows]
        write(day_rows, folder / f"days/day={day}/in.parquet")
    typed = pa.table({**pa.Table.from_pylist(rows[:4]).to_pydict(), **CARRIED})
    pq.write_table(typed, folder / "typed.parquet")
    nanos = pa.array([1, None, -1, 2**62], pa.timestamp("ns", "UTC"))
    pq.write_table(
        typed.select(["query", "document"]).append_column("at", nanos), folder / "nanos.parquet"
    )
    write_lines(
        folder / "run.trec",
        [
            *(f"{r['query_id']} Q0 {r['doc_id']} {n} {9 - n} bm25" for n, r in enumerate(rows)),
            "q0005 Q0 gone 99 0.5 bm25",
        ],
    )
    write_jsonl(
        folder / "queries.jsonl", [{"_id": f"q{q:04d}", "text": f"q {q}"} for q in range(6)]
    )
    corpus = [{"_id": row["doc_id"], "text": row["document"]} for row in rows]
    write_jsonl(folder / "corpus.jsonl", corpus)
    texts = {"queries": str(folder / "queries.jsonl"), "corpus": str(folder / "corpus.jsonl")}
    return {
        "pairs": {"input_uri": write(rejected, folder / "in.parquet", row_group_size=9)},
        "kept": {"input_uri": folder / "in.parquet", "for_reuse": True},
        "reused": {
            "input_uri": folder / "in.parquet",
            "for_reuse": True,
            "top_k": 3,
            "reuse_from": str(folder / "outputs/kept"),
        },
        "clustered": {
            "input_uri": write([rows[n * 5 % 42] for n in range(42)], folder / "scattered.parquet"),
            "cluster": True,
        },
        "partitions": {"input_uri": folder / "days"},
        "typed": {"input_uri": folder / "typed.parquet"},
        "nanos": {"input_uri": folder / "nanos.parquet"},
        "lists": {"input_uri": write_jsonl(folder / "lists.jsonl", lists), "layout": "lists"},
        "exploded": {"input_uri": folder / "lists.jsonl", "layout": "lists", "explode": True},
        "run": {"input_uri": folder / "run.trec", "layout": "run", "trec_run": True, **texts},
    }


def do(dispatcher: Dispatcher, output_uri: str, input_uri: object, **options: Any) -> None:
    handle = submit(
        str(input_uri),
        output_uri,
        **{"model_id": "null", "shard_pairs": 9, "max_reject_rate": 0.5, **options},
    )
    if handle.output.read_plan() is None:
        prepare_job(dispatcher, handle.job_id, handle.output.uri)
    job = Output(output_uri).load_job()
    work = ShardWork(models.load(job.spec), "test", 8)
    for shard_index in range(job.plan.n_shards):
        run_shard(job, job.shard(shard_index), work)
    finalize(dispatcher, job.job_id, job.output.uri)
    assert job.output.state().is_success, job.output.read_failure()


@pytest.fixture(scope="module")
def outputs(redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("readers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANKMILL_BROKER_URL", redis_server)
        forget_settings()
        dispatcher = Dispatcher(Ledger.connect(settings()), settings())
        for name, options in job_inputs(folder).items():
            do(dispatcher, str(folder / "outputs" / name), **options)
        yield folder / "outputs"
    forget_settings()


def by_pyarrow(output: Path) -> pa.Table:
    return ds.dataset(output).to_table()


def by_duckdb(output: Path) -> pa.Table:
    with duckdb.connect() as connection:
        return connection.sql(f"FROM read_parquet('{output}')").to_arrow_table()


def by_polars(output: Path) -> pa.Table:
    return pl.read_parquet(output).to_arrow()


def by_polars_lazily(output: Path) -> pa.Table:
    return pl.scan_parquet(output).collect().to_arrow()


def by_pandas(output: Path) -> pa.Table:
    # Its other types have no nulls in integers, and no lists.
    return pa.Table.from_pandas(pd.read_parquet(output, dtype_backend="pyarrow"))


def by_datasets(output: Path) -> pa.Table:
    cache = output.parent.parent / "cache" / output.name
    loaded = datasets.load_dataset(str(output), split="train", cache_dir=str(cache))
    return loaded.with_format("arrow")[:]


READERS = [by_pyarrow, by_duckdb, by_polars, by_polars_lazily, by_pandas, by_datasets]
JOBS = "pairs kept reused clustered partitions typed lists exploded run".split()
# Spark reads no nanoseconds, whatever wrote them; a job writes them only where they came in.
NO_SPARK = ["nanos"]


@pytest.mark.parametrize("name", JOBS + NO_SPARK)
@pytest.mark.parametrize("read", READERS)
def test_every_reader_sees_the_rows_of_the_parts(
    outputs: Path, name: str, read: Callable[[Path], pa.Table]
) -> None:
    assert seen(read(outputs / name)) == seen(parts(outputs / name))


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    program("java")
    from pyspark.sql import SparkSession

    session = (
        SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", False)
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.warehouse.dir", str(tmp_path_factory.mktemp("warehouse")))
        .getOrCreate()
    )
    yield session
    session.stop()


@pytest.mark.parametrize("name", JOBS)
def test_spark_sees_the_rows_of_the_parts(outputs: Path, spark: Any, name: str) -> None:
    table = spark.read.parquet(str(outputs / name)).toArrow()
    assert seen(table) == seen(parts(outputs / name))


def test_the_jobs_have_written_every_kind_of_file(outputs: Path) -> None:
    """Otherwise no reader could have mistaken them for data."""
    left = {
        path.relative_to(control(outputs / name)).parts[0]
        for name in JOBS
        for path in control(outputs / name).rglob("*")
    }
    assert left >= {
        *("job.json", "plan.json", "manifest.json", "report.html", "run.trec", "known.json"),
        *("known", "hashes", "shards", "rejected", "prepared", "queries", "scores"),
    }
    for name in JOBS:
        names = {path.name for path in (outputs / name).iterdir()}
        assert "_SUCCESS" in names
        assert all(each.startswith("part-") for each in names - {"_SUCCESS"})


def parts(output: Path) -> pa.Table:
    """Return the rows of the parts, each read by itself."""
    found = [pq.ParquetFile(path).read() for path in sorted(output.glob("part-*.parquet"))]
    assert sum(map(len, found)) > 0
    return pa.concat_tables(found)


def seen(table: pa.Table) -> tuple[list[tuple[str, str]], list[str]]:
    """Return names with types, and sorted rows, to compare across readers."""
    fields = [(field.name, str(plain(field.type))) for field in table.schema]
    columns = [column.cast(plain(column.type)) for column in table.columns]
    rows = pa.table(dict(zip(map(str, range(len(columns))), columns, strict=True))).to_pylist()
    return fields, sorted(map(repr, rows))


def plain(kind: pa.DataType) -> pa.DataType:
    """Return a type without its form in memory.

    That is the width of offsets, views, dictionaries, and the names of a list's items and of UTC.
    """
    if pa.types.is_dictionary(kind):
        return plain(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_large_list(kind) or pa.types.is_list(kind):
        return pa.list_(plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, plain(field.type)) for field in kind])
    if pa.types.is_timestamp(kind) and kind.tz in ("Etc/UTC", "+00:00"):
        return pa.timestamp(kind.unit, "UTC")
    return kind
