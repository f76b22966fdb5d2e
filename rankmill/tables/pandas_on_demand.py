"""Load pandas only when a caller asks for a data frame.

PyArrow imports pandas, where it is installed, to learn whether a plain list is one of its objects.
That costs 400 modules, 0.3 s of CPU and 40 MB in every process.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from typing import Any

import pyarrow as pa


def load_pandas_on_demand() -> None:
    """Have PyArrow convert lists without pandas; `to_pandas` still imports it."""
    if "pandas" in sys.modules:
        return
    hidden = _Hidden()
    sys.meta_path.insert(0, hidden)
    try:
        pa.array([0])  # PyArrow looks for pandas once
    finally:
        sys.meta_path.remove(hidden)


class _Hidden(MetaPathFinder):
    """A finder for which pandas is not installed."""

    def find_spec(self, fullname: str, *_: Any) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname)
