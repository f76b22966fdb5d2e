"""Looking scores up takes bounded memory for any jobs: DuckDB's limit and some more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from producer.jobs.check import check
from rankmill.output.output import Output
from rankmill.tables.pair_hash import SAVED_SCHEMA, pair_hashes
from tests.support.inputs import pairs
from tests.support.prepared import write_table
from tests.support.reused import done, job_of

pytestmark = pytest.mark.slow

N_KNOWN, N_ROWS, N_FOUND = 8_000_000, 300_000, 1000  # 24 bytes for each of the first
MAX_PEAK_MB = 600

# Peak memory is a process's own; imports and Arrow's pools are in it.
LOOK_UP = """
import sys
from pathlib import Path
from producer.inputs.source import read_source
from producer.jobs.plan import make_plan
from producer.reuse.earlier import Earlier
from producer.reuse.known_scores import look_up
from rankmill.contract.job import JobSpec
spec = JobSpec.model_validate_json(sys.argv[1])
plan = make_plan("0123456789ab", spec, read_source(spec.input_uri))
earlier = Earlier.open(spec.reuse_from)
found = look_up(spec, plan, earlier, Path(sys.argv[2]), lambda *_: None, "100MB")
[peak] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(found.n_known, int(peak.split()[1]) // 1024)
"""


def write_known(first: Output, found: pa.FixedSizeBinaryArray) -> None:
    """Write random hashes, and those to be found, in place of a job's own."""
    rng = np.random.default_rng(0)
    uri = first.shard_scores_uri(0)
    with pq.ParquetWriter(uri, SAVED_SCHEMA, use_dictionary=False, compression="none") as writer:
        for n in range(8):
            n_rows = N_KNOWN // 8 - (len(found) if n == 3 else 0)
            content = pa.py_buffer(rng.bytes(16 * n_rows))
            hashes = pa.FixedSizeBinaryArray.from_buffers(found.type, n_rows, [None, content])
            for each in (hashes, *([found] if n == 3 else [])):
                ones = np.ones(len(each), np.int32)
                columns = [each, ones.astype(np.float32), ones, ones.astype(bool)]
                writer.write_table(pa.table(columns, SAVED_SCHEMA))
    manifest = first.read_manifest()
    assert manifest
    first.write_manifest(manifest.model_copy(update={"n_scored": N_KNOWN}))


def test_looking_scores_up_takes_less_memory_than_the_hashes(tmp_path: Path) -> None:
    spec = job_of(pairs(2, 3), tmp_path / "one", "null", for_reuse=True)
    done(spec)
    first = Output(spec.output_uri)
    texts = pa.array(np.char.ljust(np.arange(N_ROWS).astype(str), 1000, "x"))
    table = pa.table({"query": np.arange(N_ROWS).astype(str), "document": texts})
    source = write_table(tmp_path / "in.parquet", table, use_dictionary=False)
    some = table.slice(5000, N_FOUND)
    write_known(first, pair_hashes(some["query"], some["document"]))
    update = {"input_uri": str(source), "output_uri": str(tmp_path / "two")}
    spec = check(spec.model_copy(update={**update, "reuse_from": first.uri})).record.spec
    command = [sys.executable, "-c", LOOK_UP, spec.model_dump_json(), str(tmp_path / "scratch")]
    said = subprocess.run(command, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    n_known, peak_mb = map(int, said.stdout.split())
    assert n_known == N_FOUND
    assert peak_mb < MAX_PEAK_MB
    packed = np.frombuffer(Path(Output(spec.output_uri).known_uri).read_bytes(), "<u8")
    assert np.flatnonzero(packed).tolist() == list(range(5000, 5000 + N_FOUND))
