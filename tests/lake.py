"""Folders as lake engines and Spark leave them, on disk or S3."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from producer.submit import check
from rankmill import storage
from rankmill.rows import read_files
from rankmill.spec import JobSpec
from tests.inputs import pairs

MARKS = {
    "Delta table": "_delta_log/00000000000000000000.json",
    "Iceberg table": "metadata/00000-a1.metadata.json",
    "Hudi table": ".hoodie/hoodie.properties",
    "Paimon table": "snapshot/snapshot-1",
    "Spark streaming output": "_spark_metadata/0",
}


def put(folder: object, *names: str, content: bytes | None = None) -> None:
    """Files in a folder: Parquet with two pairs if they are called so, else empty ones."""
    for name in names:
        given = content
        if given is None:
            given = parquet(pairs(1, 2)) if ".pq" in name or ".parq" in name else b""
        storage.write_bytes(storage.child(str(folder), name), given)


def parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def rows_of(spec: JobSpec) -> list[dict[str, Any]]:
    """All rows that a job over this input would score, in the columns of its plan."""
    plan = check(spec).plan
    assert plan is not None
    tables = read_files(plan.files, plan.schema, None, 0, 1000, "fail")
    return [row for table in tables for row in table.to_pylist()]
