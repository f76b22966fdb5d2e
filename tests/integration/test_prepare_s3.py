"""Preparing from S3 to S3: ranged reads of Parquet and packed text, and whole parts only."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from producer.prepare.job_inputs import find_inputs, needs_prepare
from producer.prepare.prepare import prepare
from rankmill import storage
from rankmill.errors import InputError
from tests.support.prepared import spec_of
from tests.support.s3 import BUCKET, s3_endpoint, s3_environment


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with s3_endpoint() as endpoint:
        for name, value in s3_environment(endpoint).items():
            monkeypatch.setenv(name, value)
        storage.reconnect()
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield f"s3://{BUCKET}"
        storage.reconnect()


def test_a_run_with_its_texts_is_joined_from_s3_to_s3(s3: str, tmp_path: Path) -> None:
    run = pa.table({"query_id": ["q2", "q1", "q2"], "doc_id": ["d1", "d2", "d9"]})
    storage.publish(f"{s3}/in/run.parquet", lambda file: pq.write_table(run, file))
    storage.write_bytes(f"{s3}/in/queries.tsv", b"q1\tone\nq2\ttwo\n")
    lines = [json.dumps({"_id": f"d{n}", "text": f"text {n}" * 50}) for n in range(3)]
    storage.write_bytes(f"{s3}/in/corpus/0.jsonl.gz", gzip.compress("\n".join(lines).encode()))
    storage.write_bytes(f"{s3}/prepared/part-00007.parquet", b"left by an attempt that was killed")
    spec = spec_of(
        f"{s3}/in/run.parquet",
        layout="run",
        queries=f"{s3}/in/queries.tsv",
        corpus=f"{s3}/in/corpus",
    )
    assert needs_prepare(spec)
    files = find_inputs(spec)
    prepare(spec, files, f"{s3}/prepared", tmp_path, lambda *_: None)
    assert storage.names(f"{s3}/prepared") == ["part-00000.parquet"]
    part = storage.stat(f"{s3}/prepared/part-00000.parquet")
    with storage.open_file(part) as content:
        found = pq.read_table(content)
    assert found["query"].to_pylist() == ["two", "two", "one"]
    assert found["document"].to_pylist() == ["text 1" * 50, None, "text 2" * 50]
    assert found["_file"].to_pylist() == [f"{s3}/in/run.parquet"] * 3

    storage.write_bytes(f"{s3}/in/corpus/0.jsonl.gz", gzip.compress(b"{}"))
    with pytest.raises(InputError, match=r"corpus/0\.jsonl\.gz changed or was removed"):
        prepare(spec, files, f"{s3}/prepared", tmp_path, lambda *_: None)
    assert storage.names(f"{s3}/prepared") == []
