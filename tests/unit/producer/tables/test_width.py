"""The limit of an input's columns, in every file format."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from producer.inputs.source import read_pairs, read_source
from producer.prepare.job_inputs import find_inputs
from rankmill.errors import InputError
from rankmill.settings import settings
from tests.support.command import called
from tests.support.prepared import spec_of, write_jsonl, write_table

pytestmark = pytest.mark.slow

PAIR = {"query": "q", "document": "d"}
ALLOWED = 20


@pytest.fixture(autouse=True)
def limit(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RANKMILL_MAX_COLUMNS", str(ALLOWED))
    settings.cache_clear()
    yield
    settings.cache_clear()


def keys(n: int) -> dict[str, int]:
    return {f"k{i}": 1 for i in range(n)}


@pytest.mark.parametrize(
    "rows",
    [
        [PAIR | keys(ALLOWED)],
        [PAIR | {f"k{i}": 1} for i in range(ALLOWED)],
        [PAIR | {"meta": keys(ALLOWED)}],
        [PAIR | {"meta": {f"k{i}": 1}} for i in range(ALLOWED)],
        [PAIR | {"meta": [{f"k{i}": 1} for i in range(ALLOWED)]}],
    ],
    ids=["one line", "a key a line", "an object", "an object a line", "a list"],
)
def test_keys_of_jsonl_are_counted_at_all_depths(tmp_path: Path, rows: list[Any]) -> None:
    path = write_jsonl(tmp_path / "in.jsonl", rows)
    with pytest.raises(InputError, match=r"in\.jsonl: has 22 columns, .* 20 are allowed;"):
        find_inputs(spec_of(path))


def test_keys_that_come_in_a_later_file_or_block_count_too(tmp_path: Path) -> None:
    few = [PAIR | {f"k{i}": "long " * 1000} for i in range(ALLOWED)]
    path = write_jsonl(tmp_path / "in.jsonl", [PAIR | {"k": "long " * 20_000}, *few])
    ended = called("run", path, tmp_path / "out", "--model", "null")
    assert ended.returncode == 2, ended.stderr
    assert "in.jsonl: has 23 columns" in ended.stderr


def test_columns_of_parquet_are_counted_at_all_depths(tmp_path: Path) -> None:
    nested = pa.array([keys(ALLOWED)])
    flat = {name: pa.array([1]) for name in keys(ALLOWED)}
    listed = pa.array([[keys(ALLOWED)]])
    for more in (flat, {"meta": nested}, {"meta": listed}):
        texts = {name: pa.array([text]) for name, text in PAIR.items()}
        path = write_table(tmp_path / "in.parquet", pa.table(texts | more))
        with pytest.raises(InputError, match=r"in\.parquet: has 22 columns, .*MAX_COLUMNS"):
            read_pairs(spec_of(path))


def test_columns_of_all_files_count_together(tmp_path: Path) -> None:
    for n in range(3):
        write_table(
            tmp_path / f"in/{n}.parquet",
            pa.table({f"k{n}-{i}": [1] for i in range(10)} | {k: [v] for k, v in PAIR.items()}),
        )
    with pytest.raises(InputError, match=r"0\.parquet and 2 more: has 32 columns"):
        read_source(str(tmp_path / "in"))


def test_the_allowed_number_of_columns_is_scored(tmp_path: Path) -> None:
    row = PAIR | keys(ALLOWED - 2)
    path = write_jsonl(tmp_path / "in.jsonl", [row])
    ended = called("run", path, tmp_path / "out", "--model", "null")
    assert ended.returncode == 0, ended.stderr
    [found] = pq.read_table(tmp_path / "out").to_pylist()
    assert json.loads(json.dumps({name: found[name] for name in row})) == row
