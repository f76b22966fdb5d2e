"""Write tables to one file as Parquet, JSONL or CSV, and lines of text, compressed by its name."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from rankmill.errors import InputError

_PLAIN_IN_CSV = (
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_floating),
    *(pa.types.is_boolean, pa.types.is_date, pa.types.is_timestamp),
)
CODECS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}


def write_lines(file: IO[bytes], name: str, lines: Iterable[str]) -> None:
    """Write lines, compressed if the name ends as CODECS has it."""
    with ExitStack() as stack:
        sink = _sink(file, name, stack)
        for line in lines:
            sink.write(line.encode())


def write_parquet(file: IO[bytes], schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Write tables as Parquet, a row group each."""
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table)


def write_csv(file: IO[bytes], name: str, tables: Iterable[pa.Table]) -> None:
    """Write tables as CSV with a header; null is empty, an empty text is `""`.

    Values that have no text of their own, such as lists, are written as JSON.
    """
    with ExitStack() as stack:
        sink = _sink(file, name, stack)
        writer = None
        for table in tables:
            plain = _with_json(table)
            writer = writer or stack.enter_context(pyarrow.csv.CSVWriter(sink, plain.schema))
            writer.write_table(plain)


def json_lines(tables: Iterable[pa.Table]) -> Iterator[str]:
    """Yield a JSON object for each row; NaN and infinite numbers are null, bytes are base64.

    Raises:
        InputError: a text is not UTF-8.
    """
    for table in tables:
        try:
            rows = table.to_pylist()
        except UnicodeDecodeError as error:
            why = f"a text of the result is not UTF-8: {error.reason}"
            raise InputError(f"{why}; run the job with --keep-cols without its column") from error
        for row in rows:
            yield _json(row) + "\n"


def _with_json(table: pa.Table) -> pa.Table:
    for at, field in enumerate(table.schema):
        if not any(is_plain(field.type) for is_plain in _PLAIN_IN_CSV):
            is_nested = pa.types.is_nested(field.type)
            texts = [
                None if value is None else _json(value) if is_nested else _plain(value)
                for value in table.column(at).to_pylist()
            ]
            table = table.set_column(at, field.name, pa.array(texts, pa.string()))
    return table


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False, default=_plain)


def _plain(value: object) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list) else value


def _sink(file: IO[bytes], name: str, stack: ExitStack) -> Any:
    """Return the file to write to, which the end of `stack` flushes and leaves open."""
    kept = _KeptOpen(file)
    codec = next((codec for suffix, codec in CODECS.items() if name.lower().endswith(suffix)), None)
    if codec is None:
        return kept
    return stack.enter_context(pa.CompressedOutputStream(pa.PythonFile(kept, "w"), codec))


class _KeptOpen(io.RawIOBase):
    """A file that Arrow's writers cannot close: it is published only later."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, content: Any) -> int:
        """Write bytes to the file."""
        return self._file.write(content)
