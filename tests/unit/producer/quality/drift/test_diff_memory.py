"""Comparing takes memory that the outputs do not bound, DuckDB's limit and some more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankmill.output.output import Output
from tests.support.finished import candidates, planned

pytestmark = pytest.mark.slow

N_QUERIES, N_CANDIDATES, N_PARTS = 8000, 125, 8
MAX_PEAK_MB = 320  # 380 with a limit of 1GB

# Peak memory is a process's own; imports and Arrow's pools are in it.
DIFF = """
import sys
from producer.quality.drift.diff import diff
from rankmill.output.output import Output
drift = diff(Output(sys.argv[1]), Output(sys.argv[2]))
[peak] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(drift.pairs.n_common, drift.churn[0].churn, drift.rbo.n_equal, int(peak.split()[1]) // 1024)
"""


def large(folder: Path, queries: np.ndarray, first: int) -> Output:
    """Make a finished job of a million pairs, each query's documents numbered from `first` on."""
    job = planned(candidates("a", ["a1"], ["a1"]), folder)
    Path(job.output.uri).mkdir(parents=True)
    size = len(queries) // N_PARTS
    bounds = tuple(n * size * N_CANDIDATES for n in range(N_PARTS + 1))
    job.output.write_job(job.record)
    files = (job.plan.files[0].model_copy(update={"n_rows": bounds[-1]}),)
    job.output.write_plan(job.plan.model_copy(update={"shard_bounds": bounds, "files": files}))
    rank = np.tile(np.arange(1, N_CANDIDATES + 1, dtype=np.int32), size)
    for part in range(N_PARTS):
        query = np.repeat(queries[part * size : (part + 1) * size], N_CANDIDATES)
        ids = [np.char.add(name, n.astype(str)) for name, n in (("q", query), ("d", rank + first))]
        scores = pa.array(1 / rank, pa.float32())
        names = ["query_id", "doc_id", "score", "rank"]
        table = pa.table([pa.array(ids[0]), pa.array(ids[1]), scores, pa.array(rank)], names=names)
        pq.write_table(table, job.output.part_uri(part))
    job.output.mark_success()
    return job.output


def test_comparing_takes_less_memory_than_the_pairs(tmp_path: Path) -> None:
    queries = np.arange(N_QUERIES)
    old, new = large(tmp_path / "old", queries, 0), large(tmp_path / "new", queries[::-1], 5)
    done = subprocess.run(
        [sys.executable, "-c", DIFF, old.uri, new.uri],
        capture_output=True,
        text=True,
        env={**os.environ, "RANKMILL_PREPARE_MEMORY": "50MB", "RANKMILL_SCRATCH": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    n_common, churn, n_equal, peak = done.stdout.split()
    assert (int(n_common), float(churn), int(n_equal)) == (N_QUERIES * (N_CANDIDATES - 5), 0.5, 0)
    assert int(peak) < MAX_PEAK_MB
    assert {path.name for path in tmp_path.iterdir()} == {"old", "new"}
