"""Lists become columns without pandas, and a column still becomes pandas'."""

from __future__ import annotations

import subprocess
import sys

_CONVERTING = """
import sys
import pyarrow as pa
from rankmill.tables.pandas_on_demand import load_pandas_on_demand

load_pandas_on_demand()
table = pa.Table.from_pylist([{"a": 1}])
assert "pandas" not in sys.modules
frame = table.to_pandas()
assert pa.Table.from_pandas(frame).to_pylist() == pa.table({"a": frame["a"]}).to_pylist()
print(type(frame).__module__, frame["a"].tolist())
"""


def test_pandas_is_imported_by_who_asks_for_a_frame() -> None:
    done = subprocess.run([sys.executable, "-c", _CONVERTING], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "pandas [1]\n"
