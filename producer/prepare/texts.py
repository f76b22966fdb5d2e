"""The texts that a run's ids stand for: queries and documents by id."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from producer.plan import is_text
from producer.prepare.rows import Rows
from rankmill.errors import InputError

_TITLE = "title"


@dataclass(frozen=True)
class Texts:
    """
    Attributes:
        flag: the option that named the files.
        title_column: stands before the text, as BEIR does it: with a blank between, then stripped.
    """

    flag: str
    rows: Rows
    id_column: str
    text_column: str
    title_column: str | None

    @classmethod
    def of(cls, flag: str, rows: Rows, ids: tuple[str, ...], texts: tuple[str, ...]) -> Self:
        """Texts in the first of the columns that are there.

        Raises:
            InputError: none is, or the text's is not text.
        """
        schema = rows.schema
        id_column = _first_there(flag, rows, ids)
        text_column = _first_there(flag, rows, texts)
        title = _TITLE if flag == "--corpus" and _TITLE in schema.names else None
        for name in filter(None, (text_column, title)):
            if not is_text(schema.field(name).type):
                raise InputError(
                    f"{rows.files[0].uri}: column '{name}' is {schema.field(name).type}, not text"
                )
        return cls(flag, rows, id_column, text_column, title)

    @property
    def id_type(self) -> pa.DataType:
        kind: pa.DataType = self.rows.schema.field(self.id_column).type
        return kind

    def tables(self) -> Iterator[pa.Table]:
        """Columns `id` as it is and `text` as large_string."""
        names = [name for name in (self.id_column, self.text_column, self.title_column) if name]
        for table in self.rows.tables(names):
            text = table[self.text_column].cast(pa.large_string())
            if self.title_column is not None:
                text = _with_title(table[self.title_column].cast(pa.large_string()), text)
            yield pa.table({"id": table[self.id_column], "text": text})


def _first_there(flag: str, rows: Rows, names: tuple[str, ...]) -> str:
    there = rows.schema.names
    found = next((name for name in names if name in there), None)
    for file in rows.files:
        if found in file.partition and file.partition[found] is None:
            raise InputError(f"{flag} {file.uri}: column '{found}' is missing, which others have")
    if found is None:
        wanted = " or ".join(f"'{name}'" for name in dict.fromkeys(names))
        raise InputError(
            f"{flag} {rows.files[0].uri}: no column {wanted}; the columns there are: "
            f"{', '.join(there) or 'none'}"
        )
    return found


def _with_title(title: pa.ChunkedArray, text: pa.ChunkedArray) -> pa.ChunkedArray:
    joined = pc.binary_join_element_wise(
        title, pc.fill_null(text, ""), pa.scalar(" ", pa.large_string())
    )
    try:
        joined = pc.utf8_trim_whitespace(joined)
    except pa.ArrowInvalid:  # what is no UTF-8 will be rejected when it is scored
        joined = pc.ascii_trim_whitespace(joined)
    has_title = pc.fill_null(pc.greater(pc.binary_length(title), 0), False)
    return pc.if_else(has_title, joined, text)
