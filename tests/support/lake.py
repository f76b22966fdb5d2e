"""Write folders as lake engines and Spark do, on disk or S3."""

from __future__ import annotations

import base64
import io
import json
import string
import struct
import uuid
import zlib
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyroaring import BitMap64

from producer.jobs.check import check
from rankmill import storage
from rankmill.contract.job import JobSpec
from rankmill.tables.files import read_files
from tests.support.inputs import pairs

# From the Delta protocol: a deletion vector's magic number, and an inline one's alphabet.
_VECTOR_MAGIC = 1681511377
_LETTERS = string.ascii_lowercase + string.ascii_uppercase
_Z85 = bytes.maketrans(
    f"{string.digits}{string.ascii_uppercase}{string.ascii_lowercase}!#$%&()*+-;<=>?@^_`{{|}}~".encode(),
    f"{string.digits}{_LETTERS}.-:+=^!/*?&<>()[]{{}}@%$#".encode(),
)

MARKS = {
    "Delta table": "_delta_log/00000000000000000000.json",
    "Iceberg table": "metadata/00000-a1.metadata.json",
    "Hudi table": ".hoodie/hoodie.properties",
    "Paimon table": "snapshot/snapshot-1",
    "Spark streaming output": "_spark_metadata/0",
}


def put(folder: object, *names: str, content: bytes | None = None) -> None:
    """Write files into a folder: Parquet with two pairs if named so, else empty ones."""
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
    """Return all rows that a job over this input would score, in the columns of its plan."""
    plan = check(spec).plan
    assert plan is not None
    tables = read_files(plan.files, plan.schema, None, 0, 1000, "fail")
    return [row for table in tables for row in table.to_pylist()]


def rewrite_log(place: object, change: Any) -> None:
    """Change the first entry of a log as an engine that has more features writes it."""
    path = f"{place}/_delta_log/00000000000000000000.json"
    entries = [json.loads(line) for line in (storage.read_bytes(path) or b"").splitlines()]
    change({name: value for entry in entries for name, value in entry.items()})
    storage.write_bytes(path, b"".join(json.dumps(entry).encode() + b"\n" for entry in entries))


def use_features(entries: dict[str, Any], *features: str) -> None:
    entries["protocol"] |= {
        "minReaderVersion": 3,
        "minWriterVersion": 7,
        "readerFeatures": list(features),
        "writerFeatures": list(features),
    }


def delete(place: object, rows: list[int], *, in_a_file: bool = False) -> None:
    """Delete rows of the first file with a deletion vector, as Databricks and Spark do."""
    vector = struct.pack("<i", _VECTOR_MAGIC) + BitMap64(rows).serialize()
    inline = base64.b85encode(vector + bytes(-len(vector) % 4)).translate(_Z85).decode()
    vectors = {"storageType": "i", "pathOrInlineDv": inline}
    if in_a_file:
        name = uuid.uuid4()
        content = b"\1" + struct.pack(">i", len(vector)) + vector
        content += struct.pack(">I", zlib.crc32(vector))
        storage.write_bytes(f"{place}/deletion_vector_{name}.bin", content)
        encoded = base64.b85encode(name.bytes).translate(_Z85).decode()
        vectors = {"storageType": "u", "pathOrInlineDv": encoded, "offset": 1}

    def change(entries: dict[str, Any]) -> None:
        use_features(entries, "deletionVectors")
        facts = {"sizeInBytes": len(vector), "cardinality": len(rows)}
        entries["add"]["deletionVector"] = vectors | facts

    rewrite_log(place, change)
