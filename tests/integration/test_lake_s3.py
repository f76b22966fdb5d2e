"""Lake tables in S3: detected with few requests, and read through their logs."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pyiceberg.catalog.sql import SqlCatalog

from producer.inputs.find import find
from producer.jobs.check import check
from rankmill import storage
from rankmill.contract.job import JobSpec
from rankmill.errors import InputError, NotAllowed
from rankmill.settings import settings
from tests.support.inputs import pairs
from tests.support.lake import MARKS, delete, put, rows_of
from tests.support.prepared import prepared
from tests.support.s3 import SECRET, Faults

WAYS = ["db/t", "db", "db/t/day=1", "db/t/day=1/x.parquet", "db/t/*/x*", "db/**/*.parquet", "d*"]


def table(n_queries: int) -> pa.Table:
    return pa.Table.from_pylist(pairs(n_queries, 5))


def spec(place: str, **options: Any) -> JobSpec:
    return JobSpec(input_uri=place, output_uri="out", model_id="null", **options)


@pytest.mark.parametrize("kind", MARKS)
def test_no_way_to_a_table_reads_its_files(s3: str, kind: str) -> None:
    put(f"{s3}/db/t", "day=1/x.parquet", "day=2/x.parquet")
    for way in WAYS:
        assert find(f"{s3}/{way}").files, way
    put(f"{s3}/db/t", MARKS[kind])
    for way in WAYS:
        with pytest.raises(InputError, match=kind):
            find(f"{s3}/{way}")


def test_a_write_that_has_not_ended_is_refused(s3: str) -> None:
    put(f"{s3}/db/t", "day=1/x.parquet", "_temporary/0/y.parquet")
    for way in WAYS:
        with pytest.raises(InputError, match=rf"{s3}/db/t holds _temporary and no _SUCCESS"):
            find(f"{s3}/{way}")


def test_many_folders_do_not_cost_a_request_each(s3: str, faults: Faults) -> None:
    put(f"{s3}/db/t", *(f"day={n}/x.pq" for n in range(40)))
    counts = {}
    for way in ("db/t", "db", "db/t/day=*/*.pq"):
        faults.n_requests = 0
        assert len(find(f"{s3}/{way}").files) == 40
        counts[way] = faults.n_requests
    assert max(counts.values()) <= 15, counts


def test_folders_above_an_input_that_may_not_be_listed_are_skipped(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(f"{s3}/db/t", "x.parquet")
    monkeypatch.setenv("RANKMILL_ALLOWED_PREFIXES", f"{s3}/db/t")
    settings.cache_clear()
    try:
        assert len(find(f"{s3}/db/t").files) == 1
        with pytest.raises(NotAllowed):
            find(f"{s3}/db")
    finally:
        monkeypatch.undo()
        settings.cache_clear()


@pytest.mark.parametrize(("name", "in_a_file"), [("t #1?", False), ("t", True)])
def test_deleted_rows_are_left_out(s3: str, tmp_path: Path, name: str, in_a_file: bool) -> None:
    place = f"{s3}/lake/{name}"
    options = storage.connection_options(place)
    write_deltalake(f"{s3}/lake/{quote(name)}", table(3), storage_options=options)
    delete(place, [1, 4], in_a_file=in_a_file)
    given = check(spec(place)).record
    assert given.prepares
    left = [row for at, row in enumerate(table(3)["doc_id"].to_pylist()) if at not in (1, 4)]
    assert prepared(given.spec, tmp_path)["doc_id"].to_pylist() == left


def test_a_delta_table_is_read_at_its_version(s3: str) -> None:
    place = f"{s3}/my lake/t #1?"
    written = f"{s3}/{quote('my lake/t #1?')}"
    options = storage.connection_options(place)
    for n_queries in (3, 2):
        write_deltalake(
            written, table(n_queries), mode="overwrite", storage_options=options,
            partition_by=["query_id"],
        )  # fmt: skip
    assert len(rows_of(spec(place))) == len(rows_of(spec(f"{place}/"))) == 10
    assert len(rows_of(spec(place, input_version="0"))) == 15
    assert {row["query_id"] for row in rows_of(spec(place))} == {"q0000", "q0001"}
    DeltaTable(written, storage_options=options).vacuum(
        0, enforce_retention_duration=False, dry_run=False
    )
    with pytest.raises(InputError, match=r"is gone, which the Delta table .* at version 0 counts"):
        check(spec(place, input_version="0"))


def test_an_iceberg_table_is_read_in_its_snapshot(s3: str, endpoint: str, tmp_path: Path) -> None:
    access = {
        "s3.endpoint": endpoint,  # not through the proxy, which Arrow's uploads overload
        "s3.access-key-id": "test",
        "s3.secret-access-key": SECRET,
        "s3.region": "us-east-1",
    }
    uri = f"sqlite:///{tmp_path}/c.db"
    catalog = SqlCatalog("c", uri=uri, warehouse=f"{s3}/w", **access)
    catalog.create_namespace("n")
    made = catalog.create_table("n.t", schema=table(1).schema)
    made.append(table(3))
    first = str(made.metadata.current_snapshot_id)
    made.overwrite(table(2))
    for place in (made.location(), made.metadata_location):
        assert len(rows_of(spec(place))) == 10
        assert len(rows_of(spec(place, input_version=first))) == 15
