"""Prepare an input as a job does, and write files to prepare."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from producer.prepare.job_inputs import find_inputs
from producer.prepare.prepare import prepare
from rankmill.contract.job import JobSpec


def spec_of(input_uri: object, **options: Any) -> JobSpec:
    texts = {name: str(options.pop(name)) for name in ("queries", "corpus") if name in options}
    return JobSpec(input_uri=str(input_uri), output_uri="out", **texts, **options)


def prepared(spec: JobSpec, folder: Path) -> pa.Table:
    """Prepare the input of a spec, and return the dataset."""
    target, scratch = folder / "prepared", folder / "scratch"
    prepare(spec, find_inputs(spec), str(target), scratch, lambda step, n_rows: None)
    assert list(scratch.iterdir()) == []
    return pa.concat_tables(pq.read_table(path) for path in sorted(target.iterdir()))


def write_lines(path: Path, lines: Iterable[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), newline="")
    return path


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    return write_lines(path, map(json.dumps, rows))


def write_table(path: Path, table: pa.Table, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def damage(path: Path, row_group: int) -> Path:
    """Overwrite the head of a row group's first page, as a failing disk does."""
    column = pq.read_metadata(path).row_group(row_group).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + 16] = b"\xff" * 16
    path.write_bytes(content)
    return path
