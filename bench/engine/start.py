"""The time from the command `rankmill run` to the first row that is scored and committed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

_POLL_S = 0.02


def seconds_to_first_row(model: str) -> float:
    """Return the seconds until the part of a job with one row is in its output."""
    with tempfile.TemporaryDirectory() as work:
        table, output = Path(work, "one.parquet"), Path(work, "out")
        row = {"query_id": ["q"], "query": ["first query"], "document": ["first document"]}
        pq.write_table(pa.table(row), table)
        command = [sys.executable, "-m", "producer.cli", "run", table, output, "--model", model]
        started = time.perf_counter()
        running = subprocess.Popen(
            [str(each) for each in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        while running.poll() is None and not any(output.glob("**/*.parquet")):
            time.sleep(_POLL_S)
        took = time.perf_counter() - started
        _, said = running.communicate()
    if running.returncode:
        raise RuntimeError(f"rankmill run failed: {said.decode()}")
    return took
