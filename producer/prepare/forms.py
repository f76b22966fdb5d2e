"""What form an input's files have: told by a file's name, or else by how it begins."""

from __future__ import annotations

import re
from collections import Counter
from enum import StrEnum

from producer.prepare.lines import first_lines
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
    ".jsonl": Form.JSONL,
    ".ndjson": Form.JSONL,
    ".json": Form.JSONL,
    ".tsv": Form.TSV,
    ".run": Form.TREC_RUN,
    ".trec": Form.TREC_RUN,
}
_COMPRESSIONS = ("", ".gz", ".zst")
_RUN_LINE = re.compile(r"\s*\S+\s+\S+\s+\S+\s+\d+\s+[-+.\deE]+\s+\S+\s*")


def find(uris: str) -> tuple[Form, list[FileStat]]:
    """The files that an input names, which all have one form.

    In a folder with Parquet files no other counts: what stands beside them describes them.

    Raises:
        InputError: nothing is there, or a file twice, or files of several forms, or of none that
            is known.
    """
    found = [file for place in storage.places(uris) for file in _find(place)]
    [(uri, n_times)] = Counter(file.uri for file in found).most_common(1)
    if n_times > 1:
        raise InputError(f"{uri} is named twice by {uris}; its rows would be read twice")
    forms: dict[Form, str] = {}
    for file in found:
        forms.setdefault(form_of(file), file.uri)
    if len(forms) > 1:
        (one, here), (other, there) = list(forms.items())[:2]
        raise InputError(f"{here} is {one}, {there} is {other}; give files of one form")
    return next(iter(forms)), found


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
    raise InputError(f"{file.uri}: neither Parquet nor JSONL nor TSV nor a TREC run")


def is_run_line(line: str) -> bool:
    """Whether this is `query_id Q0 doc_id rank score tag`."""
    return _RUN_LINE.fullmatch(line) is not None


def _find(place: str) -> list[FileStat]:
    endings = tuple(suffix + ending for suffix in _SUFFIXES for ending in _COMPRESSIONS)
    found = storage.look_for(place, (".parquet",)) or storage.look_for(place, endings)
    if not found:
        forms = "Parquet, JSONL, TSV or TREC run"
        raise InputError(f"{place}: no such file, and no {forms} file under it")
    return found
