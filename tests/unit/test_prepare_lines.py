from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.prepare.lines import first_lines, read_lines
from rankmill import storage
from rankmill.errors import InputError


@settings(max_examples=100)
@given(
    text=st.text(st.sampled_from("aä\n\r\t "), max_size=60),
    block_bytes=st.integers(1, 40),
    compressed=st.booleans(),
)
def test_lines_are_those_of_python_whatever_the_blocks(
    text: str, block_bytes: int, compressed: bool
) -> None:
    content = text.encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        path.write_bytes(gzip.compress(content) if compressed else content)
        tables = list(read_lines(storage.stat(str(path)), block_bytes))
    expected = [
        (line.rstrip("\r"), row) for row, line in enumerate(text.split("\n")) if line.strip()
    ]
    lines = [line for table in tables for line in table["line"].to_pylist()]
    assert list(zip(lines, (row for t in tables for row in t["row"].to_pylist()), strict=True)) == (
        expected
    )


def test_the_first_lines_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x" * 100 + "\n" + "y" * 20 + "\nz")
    assert first_lines(storage.stat(str(path)), 10)["line"].to_pylist() == ["x" * 100]
    path.write_text("")
    assert first_lines(storage.stat(str(path))).num_rows == 0


def test_a_line_in_a_later_block_is_named_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"line\n" * 1000 + b"\xff\n")
    with pytest.raises(InputError, match="file: line 1001 is not UTF-8"):
        list(read_lines(storage.stat(str(path)), 100))


def test_zstd_that_ends_too_early_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.zst"
    path.write_bytes(pa.compress(b"line\n" * 1000, "zstd", asbytes=True)[:-3])
    with pytest.raises(InputError, match=r"file\.zst: truncated or damaged zstd"):
        list(read_lines(storage.stat(str(path))))
