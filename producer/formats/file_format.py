"""Detect the format of an input file from its name, or else from its first bytes."""

from __future__ import annotations

import re
from enum import StrEnum

from producer.formats.arrow import FILE_MAGIC, STREAM_MAGIC
from producer.formats.lines import first_line
from producer.formats.results import looks_like_results
from rankmill import storage
from rankmill.errors import InputError
from rankmill.storage import FileStat


class FileFormat(StrEnum):
    """A format that is read, by the name that users know it by."""

    PARQUET = "Parquet"
    ARROW = "Arrow"
    JSONL = "JSONL"
    RESULTS = "results in JSON"
    CSV = "CSV"
    TSV = "TSV"
    TREC_RUN = "a TREC run"


SUFFIXES = {
    ".parquet": FileFormat.PARQUET,
    ".pq": FileFormat.PARQUET,
    ".parq": FileFormat.PARQUET,
    ".arrow": FileFormat.ARROW,
    ".arrows": FileFormat.ARROW,
    ".ipc": FileFormat.ARROW,
    ".feather": FileFormat.ARROW,
    ".jsonl": FileFormat.JSONL,
    ".ndjson": FileFormat.JSONL,
    ".json": FileFormat.JSONL,
    ".csv": FileFormat.CSV,
    ".tsv": FileFormat.TSV,
    ".run": FileFormat.TREC_RUN,
    ".trec": FileFormat.TREC_RUN,
}
_COMPRESSIONS = ("", ".gz", ".zst", ".bz2")
_RUN_LINE = re.compile(r"\s*\S+\s+\S+\s+\S+\s+\d+\s+[-+.\deE]+\s+\S+\s*")


def detect_format(file: FileStat) -> FileFormat:
    """Return a file's format, from its suffix if that is known, else from its content.

    Raises:
        InputError: the format is not one that is read.
    """
    name = file.uri.lower()
    for compression in _COMPRESSIONS:
        for suffix, file_format in SUFFIXES.items():
            if name.endswith(suffix + compression):
                is_results = suffix == ".json" and looks_like_results(file)
                return FileFormat.RESULTS if is_results else file_format
    with storage.open_file(file) as content:
        start = content.read(len(FILE_MAGIC))
    if start.startswith(b"PAR1"):
        return FileFormat.PARQUET
    if start.startswith((FILE_MAGIC, STREAM_MAGIC)):
        return FileFormat.ARROW
    line = first_line(file)
    if line.lstrip().startswith("{"):
        return FileFormat.RESULTS if looks_like_results(file) else FileFormat.JSONL
    if is_run_line(line):
        return FileFormat.TREC_RUN
    if "\t" in line:
        return FileFormat.TSV
    raise InputError(
        f"{file.uri}: neither Parquet, Arrow, JSONL, TSV nor a TREC run by its content; "
        "a file of CSV needs the suffix .csv"
    )


def is_run_line(line: str) -> bool:
    """Return whether a line has the form `query_id Q0 doc_id rank score tag`."""
    return _RUN_LINE.fullmatch(line) is not None
