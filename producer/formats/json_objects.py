"""Check that each line of JSONL is an object that all readers of JSON read alike."""

from __future__ import annotations

import json

import pyarrow as pa

from producer.formats.lines import LINES_SCHEMA, line_error
from producer.tables.database import Database, Feed
from rankmill.contract.plan import InputFile


def check_keys(file: InputFile, lines: pa.Table, database: Database) -> None:
    """Check that no object has a key twice: readers differ in which value they take.

    Raises:
        InputError: a line's object has.
    """
    query = (
        "select row, json_keys(line) from feed"
        " where len(json_keys(line)) <> list_unique(json_keys(line)) order by row limit 1"
    )
    for row, keys in database.rows(query, Feed(LINES_SCHEMA, [lines])):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise line_error(file.uri, row, f"has the key '{twice}' twice; leave one of them")


def check_objects(file: InputFile, lines: pa.Table, database: Database) -> None:
    """Check that every line is a JSON object.

    Raises:
        InputError: a line is not.
    """
    query = (
        "select row, line from feed where not json_valid(line)"
        " or case when json_valid(line) then json_type(line::json) <> 'OBJECT' end"
        " order by row limit 1"
    )
    for row, line in database.rows(query, Feed(LINES_SCHEMA, [lines])):
        what = "is not a JSON object; JSONL has one in each line"
        if _is_object(line):  # by Python, which takes what is not a character
            what = "has an escape that is not a character: half of a surrogate pair, as \\ud800"
        raise line_error(file.uri, row, what)


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
