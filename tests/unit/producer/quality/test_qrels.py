"""Judgments in every form that is read, and what is wrong with a file by its line."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from producer.quality.qrels import read_qrels
from rankmill.errors import InputError
from tests.support.inputs import write

JUDGMENTS = {"q1": {"d1": 2, "d 2": 0}, "7": {"d1": -1}}
BEIR = "query-id\tcorpus-id\tscore\r\nq1\td1\t2\r\nq1\td 2\t0\r\n\r\n7\td1\t-1"


@pytest.mark.parametrize("name", ["qrels.tsv", "qrels.tsv.gz"])
def test_beir(tmp_path: Path, name: str) -> None:
    content = BEIR.encode("utf-8-sig")
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert read_qrels(str(path)) == JUDGMENTS


@pytest.mark.parametrize("codec", [None, "gzip", "zstd"])
def test_trec(tmp_path: Path, codec: str | None) -> None:
    content = b"q1 0 d1  2\n\nq1 Q0 d1 2\n7\t0\td1\t-1\n"
    path = tmp_path / "qrels"
    path.write_bytes(pa.Codec(codec).compress(content, asbytes=True) if codec else content)
    assert read_qrels(str(path)) == {"q1": {"d1": 2}, "7": {"d1": -1}}


@pytest.mark.parametrize(
    "names", [("query_id", "doc_id", "relevance"), ("query-id", "corpus-id", "score")]
)
def test_parquet_with_ids_of_any_type(tmp_path: Path, names: tuple[str, str, str]) -> None:
    rows = [
        dict(zip(names, values, strict=True)) for values in [(1, "d1", 2.0), (1, "d2", 0.0)] * 2
    ]
    path = write([{"more": True, **row} for row in rows], tmp_path / "qrels.parquet")
    assert read_qrels(str(path)) == {"1": {"d1": 2, "d2": 0}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no judgments"),
        (b"query-id\tcorpus-id\tscore\n", "no judgments"),
        (b"q1 0 d1 1\nq1 d2 1\n", "line 2 is not query, 0, document and grade: 'q1 d2 1'"),
        (BEIR.replace("7\td1", "7 d1").encode(), "line 5 is not 3 fields between tabs"),
        (b"q1 0 d1 high", "line 1 has the grade 'high', which is not a w"),
        (b"q1 0 d1 1\nq1 0 d1 2", "line 2: document 'd1' of query 'q1' has grade 2, and 1 before"),
        (gzip.compress(b"q1 0 d1 1" * 99, mtime=0)[:-9], "damaged gzip"),
        (b"\xff\xfe", "line 1 is not UTF-8"),
        (b"PAR1 and no more", "truncated or damaged Parquet"),
    ],
)
def test_a_wrong_file_is_refused_by_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "qrels"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        read_qrels(str(path))
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query_id": "q", "relevance": 1}, "column 'doc_id' is missing"),
        ({"query_id": "q", "doc_id": None, "relevance": 1}, "row 1: an id or the grade is null"),
        ({"query_id": "q", "doc_id": "d", "relevance": 0.5}, "grades whole"),
    ],
)
def test_wrong_parquet_is_refused(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    good = {"query_id": "q", "doc_id": "d", "relevance": 1}
    path = write([{name: good[name] for name in row}, row], tmp_path / "qrels.parquet")
    with pytest.raises(InputError, match=message):
        read_qrels(str(path))


def test_no_file_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_qrels(str(tmp_path / "qrels"))
