"""Exports to S3 over HTTP are those on disk; what fails half-way leaves nothing behind."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import boto3
import pytest
from typer.testing import CliRunner

from producer.cli.app import whole_app
from producer.export.exporting import Format, export
from rankmill import storage
from rankmill.errors import InputError, OutputTaken, StorageRefused
from rankmill.output.output import Output
from tests.support.finished import candidates, finished, planned
from tests.support.inputs import write
from tests.support.s3 import BUCKET, Faults

ROWS = [
    *candidates("a", ["a1", "a2", "a3"], ["a2", "a1", "a3"]),
    *candidates("b", ["b1", "b2"], ["b1", "b2"]),
]
FORMATS: dict[str, Format] = {
    **{"x.jsonl": "jsonl", "x.csv": "csv", "x.trec": "trec", "x.tsv": "msmarco"},
    **{"x.csv.gz": "csv", "x.run.zst": "trec", "triplets.parquet": "st-triplets"},
    **{"triplets.jsonl": "st-triplets", "scores.parquet": "st-scores", "s.jsonl": "st-scores"},
}


def output_on(folder: str, made: Path, **more: Any) -> Output:
    """Finish a job of several parts whose input and output are in a folder."""
    source = storage.child(folder, "in.parquet")
    rows = [{**row, **more} for row in ROWS]
    storage.write_bytes(source, write(rows, made / "made.parquet").read_bytes())
    places = {"input_uri": source, "output_uri": storage.child(folder, "out")}
    return finished(planned([], made / "unused", shard_pairs=2, **places))


def assert_nothing_is_left(s3: str, *names: str) -> None:
    """Check that only these files are there, and no upload is open."""
    assert storage.names(f"{s3}/exports") == list(names)
    uploads = boto3.client("s3").list_multipart_uploads(Bucket=BUCKET)
    assert not uploads.get("Uploads")


def test_every_format_has_the_bytes_of_the_disk(s3: str, tmp_path: Path) -> None:
    there, here = output_on(f"{s3}/a job", tmp_path / "1"), output_on(str(tmp_path), tmp_path / "2")
    for name, to in FORMATS.items():
        uri = f"{s3}/exports/{name}"
        done = CliRunner().invoke(whole_app(), ["export", there.uri, "--to", to, "--out", uri])
        assert done.exit_code == 0 and uri in done.output, done.output
        export(here, to, str(tmp_path / name))
        assert storage.read_bytes(uri) == (tmp_path / name).read_bytes(), name
    assert gzip.decompress(storage.read_bytes(f"{s3}/exports/x.csv.gz") or b"").count(b"\n") == 6
    assert export(there, "jsonl").file_uri == f"{s3}/a job/out.jsonl"


def test_a_file_that_is_there_is_refused_and_replaced_only_on_request(
    s3: str, tmp_path: Path
) -> None:
    output, uri = output_on(f"{s3}/job", tmp_path), f"{s3}/exports/x.csv"
    storage.write_bytes(uri, b"mine")
    with pytest.raises(OutputTaken, match=f"{uri} is there already; name another file"):
        export(output, "csv", uri)
    with pytest.raises(InputError, match="lies in the job's folder"):
        export(output, "csv", f"{output.uri}/x.csv", overwrite=True)
    assert storage.read_bytes(uri) == b"mine"
    export(output, "csv", uri, overwrite=True)
    assert (storage.read_bytes(uri) or b"").startswith(b'"query_id"')


def test_a_part_that_is_damaged_leaves_no_half_of_a_file(s3: str, tmp_path: Path) -> None:
    output = output_on(f"{s3}/job", tmp_path)
    size = len(storage.read_bytes(output.part_uri(1)) or b"")
    storage.write_bytes(output.part_uri(1), bytes(size))  # the rows of part 0 are read before
    for name, to in FORMATS.items():
        with pytest.raises(InputError, match="part-00001"):
            export(output, to, f"{s3}/exports/{name}")
    assert_nothing_is_left(s3)


@pytest.mark.parametrize("before", [None, b"the old one"])
def test_an_upload_that_fails_half_way_leaves_what_was_there(
    s3: str, tmp_path: Path, faults: Faults, before: bytes | None
) -> None:
    output, uri = output_on(f"{s3}/job", tmp_path, text="x" * 4 * 2**20), f"{s3}/exports/x.jsonl"
    if before is not None:
        storage.write_bytes(uri, before)
    faults.planned = {"PUT": [None, "denied", "denied", "denied"]}  # the second part of the file
    with pytest.raises(StorageRefused, match=f"cannot write {uri}: access is denied"):
        export(output, "jsonl", uri, overwrite=True)
    assert storage.read_bytes(uri) == before
    assert_nothing_is_left(s3, *([] if before is None else ["x.jsonl"]))
