"""Detect the format of an input file from its name, or else from its first bytes."""

from __future__ import annotations

import re
from enum import StrEnum

from producer.formats.lines import first_line
from rankmill import storage
from rankmill.errors import InputError
from rankmill.storage import FileStat


class FileFormat(StrEnum):
    """A format that is read, by the name that users know it by."""

    PARQUET = "Parquet"
    JSONL = "JSONL"
    TSV = "TSV"
    TREC_RUN = "a TREC run"


SUFFIXES = {
    ".parquet": FileFormat.PARQUET,
    ".pq": FileFormat.PARQUET,
    ".parq": FileFormat.PARQUET,
    ".jsonl": FileFormat.JSONL,
    ".ndjson": FileFormat.JSONL,
    ".json": FileFormat.JSONL,
    ".tsv": FileFormat.TSV,
    ".run": FileFormat.TREC_RUN,
    ".trec": FileFormat.TREC_RUN,
}
_COMPRESSIONS = ("", ".gz", ".zst")
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
                return file_format
    with storage.open_file(file) as content:
        if content.read(4) == b"PAR1":
            return FileFormat.PARQUET
    line = first_line(file)
    if line.lstrip().startswith("{"):
        return FileFormat.JSONL
    if is_run_line(line):
        return FileFormat.TREC_RUN
    if "\t" in line:
        return FileFormat.TSV
    advice = ""
    if name.endswith(".csv"):
        advice = "; CSV is not read: write it as Parquet, as by pandas.read_csv(…).to_parquet(…)"
    raise InputError(f"{file.uri}: neither Parquet nor JSONL nor TSV nor a TREC run{advice}")


def is_run_line(line: str) -> bool:
    """Return whether a line has the form `query_id Q0 doc_id rank score tag`."""
    return _RUN_LINE.fullmatch(line) is not None
