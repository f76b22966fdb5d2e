"""A whole job from S3 to S3: real worker processes, a real endpoint, real faults."""

from __future__ import annotations

import json
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankmill import storage
from rankmill.output.output import Output
from rankmill.tables import parquet
from tests.support.command import called
from tests.support.inputs import pairs, part_bytes, write
from tests.support.s3 import BUCKET, SECRET, Faults


def test_a_job_on_s3_gives_the_parts_of_a_local_one_through_faults(
    s3: str, faults: Faults, tmp_path: Path, model_folder: Path
) -> None:
    rows = pairs(12, 7)
    rows[30]["document"] = ""
    source = write(rows, tmp_path / "in.parquet", row_group_size=9)
    options = ("--model", model_folder, "--shard-pairs", 14, "--max-reject-rate", 0.1)
    done = called("run", source, tmp_path / "out", *options)
    assert done.returncode == 0, done.stderr

    content = source.read_bytes()
    storage.write_bytes(f"{s3}/my data/lang=en/in.parquet", content)
    faults.planned = {
        "GET": ["throttle", "cut", None, "reset"] * 3,
        "PUT": [None, "throttle", None, "reset", None, None, "throttle"],
        "HEAD": ["throttle"],
    }
    done = called("run", f"{s3}/my data/*/", f"{s3}/out", *options, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n_rejected"] == 1
    assert not any(faults.planned.values())

    local = part_bytes(tmp_path / "out")
    for name, wanted in local.items():
        found = storage.read_bytes(f"{s3}/out/{name}")
        assert found is not None
        assert (
            pq.read_table(pa.BufferReader(found))
            .drop(["lang"])
            .equals(pq.read_table(pa.BufferReader(wanted)))
        )
    everything = [
        storage.read_bytes(file.uri) or b""
        for place in ("out", "_rankmill/out", "_rankmill/out/shards")
        for file in storage.find_files(f"{s3}/{place}/*", ("",))
    ]
    assert len(everything) > len(local)
    assert not any(SECRET.encode() in each for each in everything)
    assert SECRET not in done.stdout + done.stderr


def test_a_job_in_another_store_gives_the_parts_of_a_local_one(
    localbucket: str, tmp_path: Path, model_folder: Path
) -> None:
    source = write(pairs(6, 5), tmp_path / "in.parquet", row_group_size=9)
    options = ("--model", model_folder, "--shard-pairs", 10)
    done = called("run", source, tmp_path / "out", *options)
    assert done.returncode == 0, done.stderr
    storage.write_bytes(f"{localbucket}/in.parquet", source.read_bytes())
    done = called("run", f"{localbucket}/in.parquet", f"{localbucket}/out", *options)
    assert done.returncode == 0, done.stderr
    wanted = part_bytes(tmp_path / "out")
    assert wanted == {name: storage.read_bytes(f"{localbucket}/out/{name}") for name in wanted}


def test_a_store_without_conditional_puts_is_read_and_not_written(
    rclone: str, tmp_path: Path
) -> None:
    source = write(pairs(3, 4), tmp_path / "in.parquet")
    storage.write_bytes(f"{rclone}/my data/in.parquet", source.read_bytes())
    command = ("run", f"{rclone}/my data/", f"{rclone}/out", "--model", "null")
    done = called(*command)
    assert done.returncode == 2
    assert "does not know If-None-Match" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert storage.names(rclone) == ["my data"]
    done = called("run", f"{rclone}/my data/", tmp_path / "out", "--model", "null")
    assert done.returncode == 0, done.stderr
    assert pq.read_table(tmp_path / "out").num_rows == 12


@pytest.mark.parametrize("says_nothing", [True, False])
def test_a_store_where_two_writers_win_is_refused_and_nothing_changes(
    s3: str, faults: Faults, tmp_path: Path, says_nothing: bool
) -> None:
    source = write(pairs(2, 3), tmp_path / "in.parquet")
    command = ("run", source, f"{s3}/out", "--model", "null", "--overwrite")
    assert called(*command).returncode == 0
    before = _objects()
    faults.ignores_conditions = says_nothing
    faults.planned = {} if says_nothing else {"PUT": ["unknown"]}
    done = called(*command)
    assert done.returncode == 2
    assert "does not know If-None-Match" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert _objects() == before


def _objects() -> dict[str, str]:
    """Return all keys with their ETags."""
    listed = boto3.client("s3").list_objects_v2(Bucket=BUCKET)
    return {entry["Key"]: entry["ETag"] for entry in listed["Contents"]}


def test_status_by_output_needs_only_s3(s3: str) -> None:
    rows = pairs(2, 3)
    storage.publish(
        f"{s3}/in.parquet", lambda file: pq.write_table(pa.Table.from_pylist(rows), file)
    )
    done = called("run", f"{s3}/in.parquet", f"{s3}/out", "--model", "null")
    assert done.returncode == 0, done.stderr
    status = called("status", f"{s3}/out", "--json")
    assert status.returncode == 0, status.stderr
    assert json.loads(status.stdout)["state"] == "succeeded"
    manifest = Output(f"{s3}/out").read_manifest()
    assert manifest is not None and manifest.n_scored == 6
    part = storage.stat(f"{s3}/out/part-00000.parquet")
    assert sum(t.num_rows for t in parquet.read_rows(part, None, 0, 100)) == 6


def test_wrong_places_are_one_line(s3: str, tmp_path: Path) -> None:
    model = ("--model", "null")
    for source, message in {
        f"{s3}/nothing/": "no such file, and no Parquet, JSONL",
        "s3://no-such-bucket/in": "there is no such bucket",
    }.items():
        done = called("run", source, f"{s3}/out", *model)
        assert done.returncode == 2
        assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1
    storage.publish(
        f"{s3}/in/a.parquet", lambda file: pq.write_table(pa.Table.from_pylist(pairs(1, 1)), file)
    )
    inside = called("run", f"{s3}/in", f"{s3}/in/out", *model)
    assert inside.returncode == 2 and "lies in the input" in inside.stderr
