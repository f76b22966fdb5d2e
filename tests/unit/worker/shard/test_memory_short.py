"""A failed allocation is never damage: it is tried again, and no row is blamed for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankmill.errors import MemoryShort, is_memory_shortage, unexpected
from tests.support.inputs import pairs

pytestmark = pytest.mark.slow

# Arrow's other allocators reserve addresses in advance, so that a limit on those says little.
ENVIRONMENT = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}

# Runs a job's only shard with a limit on the memory that the process may still take.
SHARD = """
import json, resource, sys
from producer.jobs.check import plan_job
from rankmill.errors import RankmillError, unexpected
from rankmill.contract.job import JobSpec
from worker import models
from worker.shard.score import ShardWork
from worker.shard.run import run_shard

spec, more = JobSpec.model_validate_json(sys.argv[1]), int(sys.argv[2])
job = plan_job(spec)
work = ShardWork(models.load(spec), "test", 8)
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, -1))
try:
    print(run_shard(job, job.shard(0), work).model_dump_json())
except Exception as error:
    known = error if isinstance(error, RankmillError) else unexpected(error)
    name, text = type(known).__name__, str(known)
    print(json.dumps({"error": name, "transient": known.transient, "text": text}))
"""

TEXT_BYTES = 96 * 2**20


@pytest.fixture(scope="module", params=["zstd", "snappy"])
def large_value(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of three rows; the second takes 96 MB decoded and next to nothing on disk."""
    path = tmp_path_factory.mktemp("large") / "in.parquet"
    rows = [
        {**row, "page": "x" * (TEXT_BYTES if n == 1 else 1)} for n, row in enumerate(pairs(1, 3))
    ]
    options = {"use_dictionary": False, "write_statistics": False}
    pq.write_table(pa.Table.from_pylist(rows), path, compression=request.param, **options)
    return path


def run_shard(path: Path, folder: Path, more_bytes: int) -> dict[str, Any]:
    spec = {"input_uri": str(path), "output_uri": str(folder / "out"), "model_id": "null"}
    spec |= {"damaged": "reject", "max_reject_rate": 1, "keep_cols": ["doc_id", "page"]}
    command = [sys.executable, "-c", SHARD, json.dumps(spec), str(more_bytes)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_rows_that_do_not_fit_the_memory_are_tried_again(large_value: Path, tmp_path: Path) -> None:
    short = run_shard(large_value, tmp_path, TEXT_BYTES // 2)
    assert (short["error"], short["transient"]) == ("MemoryShort", True)
    assert short["text"].startswith("out of memory: malloc of size ")
    assert not (tmp_path / "out").exists()
    enough = run_shard(large_value, tmp_path, 16 * TEXT_BYTES)
    assert (enough["n_scored"], enough["n_rejected"]) == (3, 0)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        pa.ArrowMemoryError("malloc of size 4294967296 failed"),
        OSError("ZSTD decompression failed: Allocation error : not enough memory"),
        OSError(12, "Cannot allocate memory"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"
        ),
        RuntimeError("can't start new thread"),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_a_failed_allocation_is_known_whatever_raises_it(error: Exception) -> None:
    assert is_memory_shortage(error)
    assert isinstance(unexpected(error), MemoryShort)


def test_other_errors_are_not_a_shortage() -> None:
    assert not unexpected(OSError("ZSTD decompression failed: Data corruption detected")).transient
