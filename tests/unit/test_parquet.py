"""How Parquet is read; what it gives is tested with the storage, and by every job."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankmill import parquet, storage

_READING = """
import os, sys
from rankmill import parquet, storage

storage.is_local = lambda uri: sys.argv[2] == "disk"
before = os.listdir("/proc/self/task")
assert sum(t.num_rows for t in parquet.read_rows(storage.stat(sys.argv[1]), ["a", "c"], 0, 999))
print(len(os.listdir("/proc/self/task")) - len(before))
"""


@pytest.mark.parametrize("where", ["disk", "elsewhere"])
def test_reading_starts_no_threads_which_might_abort_the_process_at_its_end(
    tmp_path: Path, where: str
) -> None:
    table = pa.table({name: np.arange(50_000) for name in "abc"})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=20_000)
    command = [sys.executable, "-c", _READING, tmp_path / "t.parquet", where]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "0\n"


def test_rows_are_counted_where_no_column_is_asked_for(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": range(10)}), tmp_path / "t.parquet", row_group_size=6)
    tables = parquet.read_rows(storage.stat(str(tmp_path / "t.parquet")), [], 2, 3)
    assert [table.num_rows for table in tables] == [1, 3, 3, 1]
