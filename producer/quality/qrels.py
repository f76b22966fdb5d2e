"""Read relevance judgments from a file: TREC, BEIR or Parquet, on any store."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from producer.formats.lines import line_error, read_lines
from producer.lake.detect import check_plain
from rankmill import storage
from rankmill.errors import InputError, InputMissing
from rankmill.storage import FileStat
from rankmill.tables import parquet
from rankmill.tables.casts import Inexact, exact_cast
from rankmill.tables.ids import as_text

# Query id to document id to grade; 1 and more is relevant.
Qrels = dict[str, dict[str, int]]

_COLUMNS = ["query_id", "doc_id", "relevance"]
_BEIR_COLUMNS = ["query-id", "corpus-id", "score"]
_BATCH_ROWS = 64 * 1024


def read_qrels(uri: str) -> Qrels:
    """Read judgments; the format is found from the content, and text may be compressed.

    TREC      lines of query id, an unused field, document id, grade
    BEIR      TSV with the header query-id, corpus-id, score
    Parquet   columns query_id, doc_id, relevance, or as BEIR calls them

    Raises:
        InputError: the file is missing, a folder or in another format, a grade is not a whole
            number, or a document has two grades; the message names the line.
    """
    try:
        file = storage.stat(uri)
    except InputMissing:
        if storage.names(uri):
            raise InputError(f"{uri}: is a folder; name the file of the judgments") from None
        raise
    check_plain(storage.list_place(uri), [file])
    with storage.open_file(file) as content:
        is_parquet = content.read(4) == b"PAR1"
    rows = _parquet_rows(file) if is_parquet else _text_rows(file)
    qrels: Qrels = {}
    for where, query_id, doc_id, grade in rows:
        known = qrels.setdefault(query_id, {}).setdefault(doc_id, grade)
        if known != grade:
            pair = f"document {doc_id!r} of query {query_id!r}"
            raise InputError(f"{uri}, {where}: {pair} has grade {grade}, and {known} before")
    if not qrels:
        raise InputError(f"{uri}: has no judgments")
    return qrels


def _text_rows(file: FileStat) -> Iterator[tuple[str, str, str, int]]:
    is_beir = False
    for lines in read_lines(file):
        for line, row in zip(lines["line"].to_pylist(), lines["row"].to_pylist(), strict=True):
            if row == 0 and line.split("\t") == _BEIR_COLUMNS:
                is_beir = True
                continue
            fields = line.split("\t") if is_beir else line.split()
            if len(fields) != (3 if is_beir else 4):
                wanted = "3 fields between tabs" if is_beir else "query, 0, document and grade"
                raise line_error(file.uri, row, f"is not {wanted}: {line.strip()[:60]!r}")
            try:
                grade = int(fields[-1])
            except ValueError as error:
                said = f"has the grade {fields[-1]!r}, which is not a whole number"
                raise line_error(file.uri, row, said) from error
            yield f"line {row + 1}", fields[0], fields[-2], grade


def _parquet_rows(file: FileStat) -> Iterator[tuple[str, str, str, int]]:
    there = parquet.read_footer(file).schema.names
    columns = _BEIR_COLUMNS if set(_BEIR_COLUMNS) <= set(there) else _COLUMNS
    for column in columns:
        if column not in there:
            raise InputError(
                f"{file.uri}: column '{column}' is missing; judgments have {', '.join(_COLUMNS)}, "
                f"or {', '.join(_BEIR_COLUMNS)}"
            )
    first_row = 0
    for table in parquet.read_rows(file, columns, 0, _BATCH_ROWS):
        try:
            ids = [as_text(table[name]).to_pylist() for name in columns[:2]]
            grades = exact_cast(table[columns[2]], pa.int64()).to_pylist()
        except (pa.ArrowException, Inexact) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"{file.uri}: ids are text or numbers, grades whole: {reason}"
            ) from error
        for row, values in enumerate(zip(*ids, grades, strict=True), first_row):
            if None in values:
                raise InputError(f"{file.uri}, row {row}: an id or the grade is null")
            yield f"row {row}", *values
        first_row += table.num_rows
