"""Write small inputs, and read outputs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

_WORDS = "shared library with headers for fast search engines and small database tools".split()


def pairs(n_queries: int = 6, n_candidates: int = 7) -> list[dict[str, Any]]:
    """Return distinct pairs, clustered by query, with texts of different lengths."""
    return [
        {
            "query_id": f"q{q:04d}",
            "doc_id": f"d{q}-{c}",
            "query": f"{_WORDS[q % len(_WORDS)]} number {q}",
            "document": " ".join(_WORDS[(q + c + i) % len(_WORDS)] for i in range(1 + c % 9)),
        }
        for q in range(n_queries)
        for c in range(n_candidates)
    ]


def write(rows: list[dict[str, Any]], path: Path, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    # A column of nulls alone would have no type.
    fields = [f.with_type(pa.string()) if f.type == pa.null() else f for f in table.schema]
    pq.write_table(table.cast(pa.schema(fields)), path, **options)
    return path


def read_output(output: Path) -> list[dict[str, Any]]:
    """Return the result's rows as any reader of datasets returns them."""
    rows: list[dict[str, Any]] = ds.dataset(output).to_table().to_pylist()
    return rows


def control(output: Path) -> Path:
    """Return the control folder of an output."""
    return output.parent / "_rankmill" / output.name


def read_rejected(output: Path) -> list[dict[str, Any]]:
    files = sorted((control(output) / "rejected").glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def part_bytes(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(output.glob("part-*.parquet"))}


def everything_under(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def wait_for(condition: Callable[[], object], within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
