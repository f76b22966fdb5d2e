"""Read runs as BEIR, MTEB and ranx write them: JSON of query id to document id to score."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from producer.formats.lines import first_text, text_pieces
from producer.formats.rows import Rows, with_status
from rankmill.contract.plan import InputFile
from rankmill.errors import InputError
from rankmill.settings import settings
from rankmill.shown import clipped
from rankmill.storage import FileStat

_SCHEMA = pa.schema([("query_id", pa.string()), ("doc_id", pa.string()), ("score", pa.float64())])
_BATCH_ROWS = 4096

_STRING = r'"(?:[^"\\]|\\.)*"'
_BLANKS = re.compile(r"\s*")
_VALUE = r"(?:-?[\d.]+(?:[eE][+-]?\d+)?|true|false|null|NaN|-?Infinity)"
# The first query with its first score, or a query without documents.
_BEGINNING = re.compile(
    rf"\s*\{{\s*{_STRING}\s*:\s*\{{\s*(?:{_STRING}\s*:\s*{_VALUE}\s*[,}}]|\}}\s*,)"
)


def looks_like_results(file: FileStat) -> bool:
    """Return whether a file begins as `{"query": {"document": 1.5, …`, and is not JSONL.

    JSONL that begins so has other values in its first line.
    """
    text = first_text(file)
    if _BEGINNING.match(text) is None:
        return False
    start = text.strip()
    try:
        line = json.loads(start.partition("\n")[0])
    except ValueError:  # pretty-printed, or a long line
        return "\n" in start or not _begins_with_text(start)
    return all(isinstance(value, dict) for value in line.values())


def _begins_with_text(line: str) -> bool:
    """Return whether the first object inside of a line's object is whole and has a text."""
    try:
        first, _ = json.JSONDecoder().raw_decode(line, line.index("{", 1))
    except ValueError:
        return False
    return any(isinstance(value, str) for value in first.values())


def results_rows(files: tuple[InputFile, ...]) -> Rows:
    """Return the rows of results: ids as strings, and the score."""

    def tables(names: Sequence[str]) -> Iterator[pa.Table]:
        for file in files:
            row, held = 0, list[tuple[str, str, float]]()
            for found in scored(file.uri, text_pieces(file.stat)):
                held.append(found)
                if len(held) == _BATCH_ROWS:
                    yield _table(held, row, names, file)
                    row, held = row + len(held), []
            if held:
                yield _table(held, row, names, file)

    next(scored(files[0].uri, text_pieces(files[0].stat)), None)
    return Rows(files, _SCHEMA, tables)


def _table(
    held: list[tuple[str, str, float]], row: int, names: Sequence[str], file: InputFile
) -> pa.Table:
    columns = [
        pa.array(values, field.type)
        for values, field in zip(zip(*held, strict=True), _SCHEMA, strict=True)
    ]
    table = pa.table(columns, _SCHEMA).select(list(names))
    return with_status(table, file, np.arange(row, row + len(held)))


def scored(uri: str, pieces: Iterator[str]) -> Iterator[tuple[str, str, float]]:
    """Yield query id, document id and score, with one query's documents in memory.

    Args:
        uri: the file, for errors.
        pieces: its text.

    Raises:
        InputError: the text is not such JSON, or ends too early.
    """
    reader = _Reader(uri, pieces)
    reader.expect("{")
    if reader.next_is("}"):
        return
    while True:
        query = reader.value("a query id")
        if not isinstance(query, str):
            raise reader.error(f"has {query!r} in place of a query id in quotes")
        reader.expect(":")
        documents = reader.value(f"the documents of query '{query}'")
        if not isinstance(documents, _Pairs):
            raise reader.error(
                f"query '{query}' is not an object of document ids with scores; a run in JSON is "
                '{"query": {"document": 1.5}}'
            )
        for doc_id, score in documents:
            is_number = isinstance(score, int | float) and not isinstance(score, bool)
            try:
                value = float(score) if is_number else math.nan
            except OverflowError:
                value = math.inf
            if not math.isfinite(value):
                raise reader.error(
                    f"query '{query}' has {clipped(json.dumps(score), 40)} as the score of "
                    f"'{doc_id}', which is not a finite number"
                )
            yield query, doc_id, value
        if reader.next_is("}"):
            reader.check_end()
            return
        reader.expect(",")


def _check_text(value: Any) -> None:
    r"""Check that ids can be written as UTF-8: JSON may have one half of a pair, as \ud800."""
    keys = [key for key, _ in value] if isinstance(value, _Pairs) else []
    for text in [value] if isinstance(value, str) else keys:
        text.encode()


class _Pairs(list[tuple[str, Any]]):
    """A JSON object's keys and values; an object may have a key twice, which a dict would hide."""


class _Reader:
    """Reads JSON values from pieces of text, one at a time."""

    def __init__(self, uri: str, pieces: Iterator[str]) -> None:
        self._uri = uri
        self._pieces = pieces
        self._text = ""
        self._at = 0
        self._n_lines = 0
        self._decoder = json.JSONDecoder(object_pairs_hook=_Pairs)

    def next_is(self, mark: str) -> bool:
        """Return whether the next character that is not blank is `mark`, and pass it if so."""
        self._pass_blanks()
        if not self._text.startswith(mark, self._at):
            return False
        self._at += len(mark)
        return True

    def expect(self, mark: str) -> None:
        """Pass a mark.

        Raises:
            InputError: another character is there, or the end.
        """
        if not self.next_is(mark):
            rest = self._text[self._at : self._at + 1]
            raise self.error(f"has {rest!r} where '{mark}' belongs" if rest else "ends too early")

    def value(self, what: str) -> Any:
        """Return the next value.

        Raises:
            InputError: there is none, it is cut off, or it is too long.
        """
        self._pass_blanks()
        while True:
            try:
                value, self._at = self._decoder.raw_decode(self._text, self._at)
                _check_text(value)
                return value
            except RecursionError as error:
                raise self.error(f"{what}: nested too deep") from error
            except UnicodeEncodeError as error:
                raise self.error(f"{what}: an id has half of a surrogate pair") from error
            except ValueError as error:
                wrong = error
            if len(self._text) - self._at > settings().max_line_bytes:
                raise self.error(f"{what} are longer than RANKMILL_MAX_LINE_BYTES allows")
            if not self._more():
                reason = wrong.msg if isinstance(wrong, json.JSONDecodeError) else str(wrong)
                raise self.error(f"{what}: {reason}; is the file cut off?") from wrong

    def check_end(self) -> None:
        """Check that nothing follows.

        Raises:
            InputError: something does.
        """
        self._pass_blanks()
        if self._at < len(self._text):
            raise self.error("has more text after the end of its JSON")

    def error(self, what: str) -> InputError:
        """Return the error for the present place."""
        line = self._n_lines + self._text.count("\n", 0, self._at) + 1
        return InputError(f"{self._uri}: line {line}: {what}")

    def _pass_blanks(self) -> None:
        while True:
            found = _BLANKS.match(self._text, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._text) or not self._more():
                return

    def _more(self) -> bool:
        piece = next(self._pieces, None)
        if piece is None:
            return False
        self._n_lines += self._text.count("\n", 0, self._at)
        self._text = self._text[self._at :] + piece
        self._at = 0
        return True
