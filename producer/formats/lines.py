"""Read the lines of a text file, plain, gzip, bzip2 or zstd, in blocks that Arrow splits."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rankmill import storage
from rankmill.errors import InputError, StorageUnavailable, is_memory_shortage, unexpected
from rankmill.settings import settings
from rankmill.storage import FileStat

LINES_SCHEMA = pa.schema([("line", pa.large_string()), ("row", pa.int64())])

_BLOCK_BYTES = 4 * 2**20
# Files that unpack to less are read whatever their ratio.
_FREE_BYTES = 256 * 2**20
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd"}
_MAGIC_BYTES = max(map(len, _MAGIC))
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_lines(file: FileStat, block_bytes: int = _BLOCK_BYTES) -> Iterator[pa.Table]:
    """Yield a file's lines in tables of LINES_SCHEMA; blank lines are counted and left out.

    Raises:
        InputError: a line is not UTF-8 or too long, the archive is damaged or truncated, or the
            file has changed.
    """
    row = 0
    for block in _blocks(file, block_bytes):
        lines = pc.split_pattern(pa.array([block], pa.large_binary()), b"\n").values
        rows = np.arange(row, row + len(lines))
        row += len(lines)
        if len(block) > settings().max_line_bytes:
            too_long = pc.greater(pc.binary_length(lines), settings().max_line_bytes)
            if (at := pc.index(too_long, True).as_py()) >= 0:
                raise _too_long(file.uri, rows[at])
        try:
            lines = lines.cast(pa.large_string())
        except pa.ArrowInvalid:
            for number, line in zip(rows.tolist(), lines.to_pylist(), strict=True):
                _decoded(file.uri, number, line)
            raise
        if b"\r" in block:
            lines = pc.ascii_rtrim(lines, "\r")
        is_blank = pc.or_(pc.equal(pc.binary_length(lines), 0), pc.ascii_is_space(lines))
        yield pa.table([lines, rows], LINES_SCHEMA).filter(pc.invert(is_blank))


def text_lines(file: FileStat) -> Iterator[str]:
    """Yield a file's lines with their ends, blank ones too; errors as of `read_lines`."""
    row, limit = 0, settings().max_line_bytes
    for block in _blocks(file, _BLOCK_BYTES):
        for line in block.split(b"\n"):
            if len(line) > limit:
                raise _too_long(file.uri, row)
            yield _decoded(file.uri, row, line) + "\n"
            row += 1


def first_lines(file: FileStat, n_bytes: int = 64 * 1024) -> pa.Table:
    """Return the lines of a file's first bytes as `read_lines` does; at least one if it has any."""
    return next(read_lines(file, n_bytes), LINES_SCHEMA.empty_table())


def first_text(file: FileStat, n_bytes: int = 64 * 1024) -> str:
    """Return a file's first bytes as text, without what follows the last whole character."""
    with _opened(file) as content:
        start: bytes = content.read(n_bytes)
    return start.removeprefix(_BYTE_ORDER_MARK).decode(errors="ignore")


def text_pieces(file: FileStat, n_bytes: int = _BLOCK_BYTES) -> Iterator[str]:
    """Yield a file's text in pieces; errors as of `read_lines`, but for the length of lines."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    total = 0
    with _opened(file) as content:
        while piece := content.read(n_bytes):
            total += len(piece)
            _check_ratio(file, total)
            try:
                yield decoder.decode(piece)
            except UnicodeDecodeError as error:
                raise InputError(f"{file.uri}: is not UTF-8: {error.reason}") from error


def first_line(file: FileStat) -> str:
    """Return a file's first line that is not blank, or an empty string."""
    return next(iter(first_lines(file)["line"].to_pylist()), "")


def line_error(uri: str, row: int, what: str) -> InputError:
    """Return the error for a line; users count lines from 1, as editors do."""
    return InputError(f"{uri}: line {row + 1} {what}")


def _decoded(uri: str, row: int, line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        what = f"is not UTF-8: {error.reason}; convert the file, as by iconv -t UTF-8"
        raise line_error(uri, row, what) from error


def _blocks(file: FileStat, block_bytes: int) -> Iterator[bytes]:
    """Yield whole lines without the last one's end."""
    limit = settings().max_line_bytes
    row = 0
    with _opened(file) as content:
        begun = [content.read(block_bytes).removeprefix(_BYTE_ORDER_MARK)]
        n_bytes = len(begun[0])
        while block := content.read(block_bytes):
            n_bytes += len(block)
            _check_ratio(file, n_bytes)
            whole, newline, after = block.rpartition(b"\n")
            if newline:
                lines = b"".join([*begun, whole])
                yield lines
                row += lines.count(b"\n") + 1
                begun = [after]
            else:
                begun.append(block)
            # Of these bytes only the first block may have ends of lines.
            if sum(map(len, begun)) > block_bytes + limit:
                raise _too_long(file.uri, row + begun[0].count(b"\n"))
    if rest := b"".join(begun):
        yield rest.removesuffix(b"\n")


def _check_ratio(file: FileStat, n_bytes: int) -> None:
    ratio = settings().max_unpacked_ratio
    if n_bytes > _FREE_BYTES and n_bytes > ratio * file.size_bytes:
        raise InputError(
            f"{file.uri}: unpacks to more than {ratio} times its {file.size_bytes} bytes; "
            "is it damaged? If not, set RANKMILL_MAX_UNPACKED_RATIO higher"
        )


def _too_long(uri: str, row: int) -> InputError:
    limit = settings().max_line_bytes
    what = f"is longer than {limit} bytes; split it, or set RANKMILL_MAX_LINE_BYTES higher"
    return line_error(uri, row, what)


@contextmanager
def _opened(file: FileStat) -> Iterator[Any]:
    """Open a file, decompressed if its first bytes say so."""
    with storage.open_file(file) as content:
        start = content.read(_MAGIC_BYTES)
        codec = next((codec for magic, codec in _MAGIC.items() if start.startswith(magic)), None)
        content.seek(0)
        try:
            if codec is None:
                yield content
            else:
                # Arrow reads little at a time, which on S3 would be a request each.
                buffered = io.BufferedReader(cast(io.RawIOBase, content), _BLOCK_BYTES)
                yield pa.CompressedInputStream(pa.PythonFile(buffered, "r"), codec)
        except OSError as error:
            if is_memory_shortage(error):
                raise unexpected(error) from error
            if error.errno:
                raise StorageUnavailable(f"cannot read {file.uri}: {error.strerror}") from error
            raise InputError(f"{file.uri}: truncated or damaged {codec}: {error}") from error
