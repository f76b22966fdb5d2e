"""What form an input's files have: told by a file's name, or else by how it begins."""

from __future__ import annotations

import re
from enum import StrEnum

from producer.formats.lines import first_lines
from rankmill import storage
from rankmill.errors import InputError
from rankmill.storage import FileStat


class Form(StrEnum):
    PARQUET = "Parquet"
    JSONL = "JSONL"
    TSV = "TSV"
    TREC_RUN = "a TREC run"


_SUFFIXES = {
    ".parquet": Form.PARQUET,
    ".pq": Form.PARQUET,
    ".parq": Form.PARQUET,
    ".jsonl": Form.JSONL,
    ".ndjson": Form.JSONL,
    ".json": Form.JSONL,
    ".tsv": Form.TSV,
    ".run": Form.TREC_RUN,
    ".trec": Form.TREC_RUN,
}
_COMPRESSIONS = ("", ".gz", ".zst")
_RUN_LINE = re.compile(r"\s*\S+\s+\S+\s+\S+\s+\d+\s+[-+.\deE]+\s+\S+\s*")


def form_of(file: FileStat) -> Form:
    """As the name says; a name that says nothing costs a look into the file.

    Raises:
        InputError: the file has no form that is known.
    """
    name = file.uri.lower()
    for ending in _COMPRESSIONS:
        for suffix, form in _SUFFIXES.items():
            if name.endswith(suffix + ending):
                return form
    with storage.open_file(file) as content:
        if content.read(4) == b"PAR1":
            return Form.PARQUET
    line = next(iter(first_lines(file)["line"].to_pylist()), "")
    if line.lstrip().startswith("{"):
        return Form.JSONL
    if is_run_line(line):
        return Form.TREC_RUN
    if "\t" in line:
        return Form.TSV
    advice = ""
    if name.endswith(".csv"):
        advice = "; CSV is not read: write it as Parquet, as by pandas.read_csv(…).to_parquet(…)"
    raise InputError(f"{file.uri}: neither Parquet nor JSONL nor TSV nor a TREC run{advice}")


def is_run_line(line: str) -> bool:
    """Whether this is `query_id Q0 doc_id rank score tag`."""
    return _RUN_LINE.fullmatch(line) is not None
