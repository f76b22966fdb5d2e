"""Preparing takes bounded memory for any input: DuckDB's limit and some more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankmill.contract.job import JobSpec
from tests.support.prepared import spec_of, write_table

pytestmark = pytest.mark.slow

N_PAIRS, N_DOCUMENTS, N_QUERIES = 500_000, 50_000, 1009
TEXT_BYTES = 2000  # a gigabyte of pairs
MAX_PEAK_MB = 750

# Peak memory is a process's own, so each case gets one; imports and Arrow's pools are in it.
PREPARE = """
import resource, sys
from pathlib import Path
from producer.prepare.job_inputs import find_inputs
from producer.prepare.prepare import prepare
from rankmill.contract.job import JobSpec
if len(sys.argv) > 4:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]),) * 2)
spec = JobSpec.model_validate_json(sys.argv[1])
prepare(spec, find_inputs(spec), sys.argv[2], Path(sys.argv[3]), lambda *_: None, "100MB")
[peak] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(int(peak.split()[1]) // 1024)  # getrusage would return the parent's if larger
"""


def write_texts(path: Path, columns: dict[str, np.ndarray]) -> Path:
    """Write the columns, and a `text` of TEXT_BYTES in each row."""
    n_rows, at_once = len(next(iter(columns.values()))), 10_000
    text = pa.array(np.char.ljust(np.arange(at_once).astype(str), TEXT_BYTES, "x"))
    table = pa.table(columns)
    schema = table.schema.append(pa.field("text", pa.string()))
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False) as writer:
        for start in range(0, n_rows, at_once):
            writer.write_table(table.slice(start, at_once).append_column("text", text))
    return path


def run_prepare(spec: JobSpec, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    arguments = [spec.model_dump_json(), str(folder / "prepared"), str(folder / "scratch")]
    command = [sys.executable, "-c", PREPARE, *arguments, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def peak_mb(spec: JobSpec, folder: Path) -> int:
    done = run_prepare(spec, folder)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def read_column(folder: Path, name: str) -> np.ndarray:
    tables = [pq.read_table(path, columns=[name]) for path in sorted(folder.iterdir())]
    values: np.ndarray = pa.concat_tables(tables)[name].to_numpy()
    return values


def test_clustering_takes_less_memory_than_the_pairs(tmp_path: Path) -> None:
    n = np.arange(N_PAIRS)
    query_id = n * 7919 % N_QUERIES
    columns = {"query_id": query_id, "query": query_id.astype(str), "n": n}
    path = write_texts(tmp_path / "in.parquet", columns)
    peak = peak_mb(spec_of(path, cluster=True, document_col="text"), tmp_path)
    assert peak < MAX_PEAK_MB
    first = np.unique(query_id, return_index=True)[1]
    assert np.array_equal(
        read_column(tmp_path / "prepared", "n"), np.argsort(first[query_id], kind="stable")
    )


def test_joining_takes_less_memory_than_the_pairs(tmp_path: Path) -> None:
    n = np.arange(N_PAIRS)
    query_id, doc_id = n // 500, n * 104729 % N_DOCUMENTS
    run = pa.table({"query_id": query_id, "doc_id": doc_id})
    queries = pa.table({"id": np.unique(query_id), "text": np.unique(query_id).astype(str)})
    spec = spec_of(
        write_table(tmp_path / "run.parquet", run),
        layout="run",
        queries=write_table(tmp_path / "queries.parquet", queries),
        corpus=write_texts(tmp_path / "corpus.parquet", {"id": np.arange(N_DOCUMENTS)}),
    )
    assert peak_mb(spec, tmp_path) < MAX_PEAK_MB
    assert np.array_equal(read_column(tmp_path / "prepared", "doc_id"), doc_id)


@pytest.mark.parametrize("max_file_mb", [3, 6])
def test_a_scratch_folder_that_is_full_is_named(tmp_path: Path, max_file_mb: int) -> None:
    """The disk has no room for the array of positions, 4 MB, or for the rows."""
    n = np.arange(N_PAIRS)
    table = pa.table({"query_id": n % 9, "query": n.astype(str), "document": n.astype(str)})
    path = write_table(tmp_path / "in.parquet", table)
    done = run_prepare(spec_of(path, cluster=True), tmp_path, str(max_file_mb * 2**20))
    message = f"StorageRefused: cannot prepare the input in {tmp_path}/scratch/prepare: File too"
    assert message in done.stderr
