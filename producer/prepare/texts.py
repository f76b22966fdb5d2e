"""The texts that a run's ids stand for: queries and documents by id."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import pyarrow as pa

from producer.formats.rows import Rows, RowsWithIds
from producer.tables.text_columns import NO_TITLE, find_title, is_text
from rankmill.errors import InputError
from rankmill.tables.titles import with_titles


@dataclass(frozen=True)
class Texts:
    """
    Attributes:
        flag: the option that named the files.
        title_column: is joined before the text.
    """

    flag: str
    rows: Rows
    id_column: str
    text_column: str
    title_column: str | None

    @classmethod
    def of(
        cls,
        flag: str,
        rows: Rows,
        ids: tuple[str, ...],
        texts: tuple[str, ...],
        title: str | None = NO_TITLE,
    ) -> Self:
        """Texts in the first of the columns that are there.

        Args:
            title: as --title-col has it.

        Raises:
            InputError: none is, or the text's or the title's is not text.
        """
        schema = rows.schema
        id_column = _first_there(flag, rows, ids)
        text_column = _first_there(flag, rows, texts)
        where = f"{flag} {rows.files[0].uri}"
        if not is_text(schema.field(text_column).type):
            kind = schema.field(text_column).type
            raise InputError(f"{where}: column '{text_column}' is {kind}, not text")
        title_column = find_title(title, schema, (text_column,), where)
        for name in filter(None, (id_column, text_column, title_column)):
            _check_in_all(flag, rows, name)
        with_ids = RowsWithIds.of(rows, [id_column])
        return cls(flag, with_ids, id_column, text_column, title_column)

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
                text = with_titles(table[self.title_column], text)
            yield pa.table({"id": table[self.id_column], "text": text})


def _first_there(flag: str, rows: Rows, names: tuple[str, ...]) -> str:
    there = rows.schema.names
    found = next((name for name in names if name in there), None)
    if found is None:
        wanted = " or ".join(f"'{name}'" for name in dict.fromkeys(names))
        raise InputError(
            f"{flag} {rows.files[0].uri}: no column {wanted}; the columns there are: "
            f"{', '.join(there) or 'none'}"
        )
    return found


def _check_in_all(flag: str, rows: Rows, column: str) -> None:
    """Raise InputError where a file of several lacks the column, so that nulls are in its place."""
    for file in rows.files:
        if column in file.partition and file.partition[column] is None:
            raise InputError(f"{flag} {file.uri}: column '{column}' is missing, which others have")
