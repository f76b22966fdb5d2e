"""Read CSV and TSV with named columns: every value is text, and empty ones are null.

Python's `csv` reads them, since it alone counts lines and refuses an open quote.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from producer.formats.lines import line_error, text_lines
from producer.formats.rows import Rows, with_status
from producer.tables.width import check_n_columns
from rankmill.contract.plan import InputFile
from rankmill.errors import InputError
from rankmill.settings import settings

_BATCH_ROWS = 4096
_BATCH_CHARS = 4 * 2**20


@dataclass(frozen=True)
class Form:
    """The way in which lines of files are divided into columns.

    Attributes:
        separator: the character between values.
        names: the columns of files without a header; None where the first line has them.
        is_quoted: whether quotes enclose values, as RFC 4180 has them; else they are characters.
    """

    separator: str
    names: tuple[str, ...] | None = None
    is_quoted: bool = True


def separated_rows(files: tuple[InputFile, ...], form: Form, numbers: Collection[str] = ()) -> Rows:
    """Return the rows of CSV or TSV files; values keep their exact text.

    Args:
        files: the files, in order; the first has all columns.
        form: how they are written.
        numbers: columns that are read as float64, if they are there.

    Raises:
        InputError: a header is missing, differs from the first file's, or has a name twice.
    """
    names = form.names or _header(files[0], form)
    if not all(names):
        raise InputError(f"--columns {','.join(names)}: a name is empty")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{files[0].uri}: column '{twice}' is there twice; rename one")
    check_n_columns(files[0].uri, len(names))
    kinds = {name: pa.float64() if name in numbers else pa.string() for name in names}
    schema = pa.schema(list(kinds.items()))

    def tables(wanted: Sequence[str]) -> Iterator[pa.Table]:
        for file in files:
            there = form.names or _header(file, form)
            if sorted(there) != sorted(names):
                raise InputError(
                    f"{file.uri}: its columns are {', '.join(there)}, those of {files[0].uri} "
                    f"{', '.join(names)}; give files with the same header"
                )
            for lines, rows in _batches(file, form, len(there)):
                columns = {
                    name: _column(file.uri, name, lines, [row[at] or None for row in rows], kind)
                    for name in wanted
                    for at, kind in [(there.index(name), kinds[name])]
                }
                own = pa.table(columns, pa.schema([schema.field(name) for name in wanted]))
                if not wanted:
                    own = pa.table({"": lines}).select([])
                yield with_status(own, file, np.array(lines))

    return Rows(files, schema, tables)


def first_values(file: InputFile, form: Form) -> list[str]:
    """Return the values of a file's first line; none for an empty file.

    Raises:
        InputError: it cannot be read.
    """
    return next(_lines(file, form), (0, []))[1]


def _header(file: InputFile, form: Form) -> tuple[str, ...]:
    """Return the names in the first line; a nameless column, as pandas' index, gets a number."""
    values = first_values(file, form)
    if not values:
        raise InputError(f"{file.uri}: is empty, where the first line should name the columns")
    other = next((mark for mark in ";\t|," if mark in values[0]), None)
    if len(values) == 1 and other is not None:
        raise InputError(
            f"{file.uri}: line 1 has one value with {other!r} in it; separate values by commas in "
            "a CSV, and by tabs in a TSV"
        )
    return tuple(value.strip() or f"column_{n}" for n, value in enumerate(values, 1))


def _batches(
    file: InputFile, form: Form, n_columns: int
) -> Iterator[tuple[list[int], list[list[str]]]]:
    """Yield rows with the lines that they begin in, counted from 0; the header is left out."""
    lines: list[int] = []
    rows: list[list[str]] = []
    n_chars, is_header = 0, form.names is None
    for line, row in _lines(file, form):
        if len(row) != n_columns:
            is_cut = " (is the file cut off here?)" if len(row) < n_columns else ""
            by = "the header has" if form.names is None else "there should be"
            raise line_error(
                file.uri, line, f"has {len(row)} values, where {by} {n_columns}{is_cut}"
            )
        if is_header:
            is_header = False
            continue
        lines.append(line)
        rows.append(row)
        n_chars += sum(map(len, row))
        if len(rows) == _BATCH_ROWS or n_chars >= _BATCH_CHARS:
            yield lines, rows
            lines, rows, n_chars = [], [], 0
    if rows:
        yield lines, rows


def _lines(file: InputFile, form: Form) -> Iterator[tuple[int, list[str]]]:
    """Yield the values of each row that is not blank, and the line that it begins in, from 0.

    Raises:
        InputError: a value is too long, or its quotes are wrong.
    """
    csv.field_size_limit(settings().max_line_bytes)
    reader = csv.reader(
        text_lines(file.stat),
        delimiter=form.separator,
        quoting=csv.QUOTE_MINIMAL if form.is_quoted else csv.QUOTE_NONE,
        strict=True,
    )
    while True:
        begins = reader.line_num
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise line_error(file.uri, begins, _wrong_quotes(str(error))) from error
        if row:
            yield begins, row


def _wrong_quotes(reason: str) -> str:
    if "end of data" in reason:
        return "opens a quote that is not closed: is the file cut off?"
    if "field limit" in reason:
        return (
            "has a value that is too long, or opens a quote that is not closed; if it is right, "
            "set RANKMILL_MAX_LINE_BYTES higher"
        )
    if "expected after" in reason:
        return 'has text after a closing quote; a quote inside of quotes is written as ""'
    return f"cannot be read: {reason}"


def _column(
    uri: str, name: str, lines: list[int], values: list[str | None], kind: pa.DataType
) -> pa.Array:
    column = pa.array(values, pa.string())
    if kind == pa.string():
        return column
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:
        for line, value in zip(lines, column, strict=True):
            try:
                value.cast(kind)
            except pa.ArrowInvalid as error:
                what = f"has '{value}' in column '{name}', which is not a number"
                raise line_error(uri, line, what) from error
        raise
