"""Lines of text files, plain and packed."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.formats.lines import first_lines, read_lines
from rankmill import storage
from rankmill.errors import InputError
from rankmill.settings import settings as limits


@settings(max_examples=100)
@given(
    text=st.text(st.sampled_from("aä\n\r\t "), max_size=60),
    block_bytes=st.integers(1, 40),
    compressed=st.booleans(),
)
def test_lines_are_those_of_python_for_any_block_size(
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


@pytest.mark.parametrize("block_bytes", [7, 40, 4096])
@pytest.mark.parametrize("end", ["\n", "", "\nmore\n"])
def test_a_line_over_the_limit_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int, end: str
) -> None:
    monkeypatch.setenv("RANKMILL_MAX_LINE_BYTES", "50")
    limits.cache_clear()
    path = tmp_path / "file.gz"
    try:
        path.write_bytes(gzip.compress(("line\n" * 30 + "x" * 50 + end).encode()))
        assert sum(t.num_rows for t in read_lines(storage.stat(str(path)), block_bytes)) >= 31
        path.write_bytes(gzip.compress(("line\n" * 30 + "x" * 51 + end).encode()))
        with pytest.raises(InputError, match=r"file\.gz: line 31 is longer than 50 bytes; "):
            list(read_lines(storage.stat(str(path)), block_bytes))
    finally:
        limits.cache_clear()


def test_a_line_without_end_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit bounds the memory, however large an archive's content is."""
    monkeypatch.setenv("RANKMILL_MAX_LINE_BYTES", "100")
    limits.cache_clear()
    path = tmp_path / "file.gz"
    whole = gzip.compress(b"line\n" + b"x" * 20_000_000)
    path.write_bytes(whole[: len(whole) // 2])  # read to its end, it would be refused as truncated
    try:
        with pytest.raises(InputError, match="line 2 is longer than 100 bytes"):
            list(read_lines(storage.stat(str(path)), 1000))
    finally:
        limits.cache_clear()


def test_zstd_that_ends_too_early_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.zst"
    path.write_bytes(pa.compress(b"line\n" * 1000, "zstd", asbytes=True)[:-3])
    with pytest.raises(InputError, match=r"file\.zst: truncated or damaged zstd"):
        list(read_lines(storage.stat(str(path))))


@pytest.mark.slow
def test_a_small_archive_with_much_in_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.jsonl.zst"
    path.write_bytes(pa.Codec("zstd").compress((b" " * 2**20 + b"\n") * 300, asbytes=True))
    with pytest.raises(InputError, match=r"unpacks to more than 300 times its \d+ bytes"):
        list(read_lines(storage.stat(str(path))))
