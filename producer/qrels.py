"""Relevance judgments from a file: TREC's, BEIR's or Parquet, on any store."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator

import pyarrow as pa

from rankmill import parquet, storage
from rankmill.errors import InputError

# Query id to document id to grade; 1 and more is relevant.
Qrels = dict[str, dict[str, int]]

_COLUMNS = ["query_id", "doc_id", "relevance"]
_BEIR_COLUMNS = ["query-id", "corpus-id", "score"]
_BATCH_ROWS = 64 * 1024


def read_qrels(uri: str) -> Qrels:
    """Read judgments, what they are being told by the content; text may be packed by gzip.

    TREC      lines of query id, a field that nobody reads, document id, grade
    BEIR      TSV with the header query-id, corpus-id, score
    Parquet   columns query_id, doc_id, relevance, or as BEIR calls them

    Raises:
        InputError: no such file, none of these, a grade that is no whole number, or two grades for
            one document; with the line.
    """
    content = storage.read_bytes(uri)
    if content is None:
        raise InputError(f"{uri}: no such file")
    rows = _parquet_rows(uri) if content[:4] == b"PAR1" else _text_rows(uri, _text(uri, content))
    qrels: Qrels = {}
    for where, query_id, doc_id, grade in rows:
        known = qrels.setdefault(query_id, {}).setdefault(doc_id, grade)
        if known != grade:
            pair = f"document {doc_id!r} of query {query_id!r}"
            raise InputError(f"{uri}, {where}: {pair} has grade {grade}, and {known} before")
    if not qrels:
        raise InputError(f"{uri}: no judgments in it")
    return qrels


def _text(uri: str, content: bytes) -> str:
    try:
        unpacked = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        return unpacked.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{uri}: damaged gzip: {error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{uri}: neither Parquet nor UTF-8 text") from error


def _text_rows(uri: str, text: str) -> Iterator[tuple[str, str, str, int]]:
    is_beir = text.partition("\n")[0].rstrip("\r").split("\t") == _BEIR_COLUMNS
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or (is_beir and number == 1):
            continue
        fields = line.split("\t") if is_beir else line.split()
        if len(fields) != (3 if is_beir else 4):
            wanted = "3 fields between tabs" if is_beir else "query, 0, document and grade"
            raise InputError(f"{uri}, line {number}: not {wanted}: {line.strip()[:60]!r}")
        try:
            grade = int(fields[-1])
        except ValueError as error:
            raise InputError(
                f"{uri}, line {number}: grade {fields[-1]!r} is not a whole number"
            ) from error
        yield f"line {number}", fields[0], fields[-2], grade


def _parquet_rows(uri: str) -> Iterator[tuple[str, str, str, int]]:
    file = storage.stat(uri)
    there = parquet.read_footer(file).schema.names
    columns = _BEIR_COLUMNS if set(_BEIR_COLUMNS) <= set(there) else _COLUMNS
    for column in columns:
        if column not in there:
            raise InputError(
                f"{uri}: column '{column}' is missing; judgments have {', '.join(_COLUMNS)}, "
                f"or {', '.join(_BEIR_COLUMNS)}"
            )
    first_row = 0
    for table in parquet.read_rows(file, columns, 0, _BATCH_ROWS):
        try:
            ids = [table[name].cast(pa.string()).to_pylist() for name in columns[:2]]
            grades = table[columns[2]].cast(pa.int64()).to_pylist()
        except pa.ArrowException as error:
            reason = str(error).partition("\n")[0]
            raise InputError(f"{uri}: ids are text or numbers, grades whole: {reason}") from error
        for row, values in enumerate(zip(*ids, grades, strict=True), first_row):
            if None in values:
                raise InputError(f"{uri}, row {row}: an id or the grade is null")
            yield f"row {row}", *values
        first_row += table.num_rows
