"""The texts of a run's queries and documents, by id, and their join with the run's rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pyarrow as pa

from producer.formats.rows import Rows, with_job_ids
from producer.prepare.row_order import ROW_NUMBER, TABLE
from producer.tables.column_kinds import NO_TITLE, find_title, is_text
from producer.tables.database import Feed
from producer.tables.keys import as_key, key_type
from producer.tables.shuffle import Shuffle
from producer.tables.workspace import Workspace
from rankmill.errors import InputError
from rankmill.tables.ids import as_text
from rankmill.tables.titles import lengths_of_titles, with_titles

_TEXT = [("text", pa.large_binary()), ("title_chars", pa.int32())]
_SCHEMA = pa.schema([*_TEXT, ("is_there", pa.bool_())])


@dataclass(frozen=True)
class Texts:
    """The texts of --queries or --corpus.

    Attributes:
        flag: the option that named the files.
        rows: the files' rows.
        id_column: has the ids.
        text_column: has the texts.
        title_column: has titles, to be joined before the texts.
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
        """Choose the columns of ids and texts: the first names that are there.

        Args:
            flag: the option that named the files.
            rows: the files' rows.
            ids: names for the ids.
            texts: names for the texts.
            title: the value of --title-col.

        Raises:
            InputError: no name is there, a file lacks a column, or texts or titles are not text.
        """
        where = f"{flag} {rows.files[0].uri}"
        chosen = []
        for names in (ids, texts):
            there = [name for name in dict.fromkeys(names) if name in rows.schema.names]
            if not there:
                wanted = " or ".join(f"'{name}'" for name in dict.fromkeys(names))
                raise InputError(
                    f"{where}: no column {wanted}; the columns there are: "
                    f"{', '.join(rows.schema.names) or 'none'}"
                )
            chosen.append(there[0])
        id_column, text_column = chosen
        kind = rows.schema.field(text_column).type
        if not is_text(kind):
            raise InputError(f"{where}: column '{text_column}' is {kind}, not text")
        title_column = find_title(title, rows.schema, (text_column,), where)
        for name in filter(None, (id_column, text_column, title_column)):
            for file in rows.files:
                if name in file.partition and file.partition[name] is None:
                    raise InputError(
                        f"{flag} {file.uri}: column '{name}' is missing, which others have"
                    )
        return cls(flag, with_job_ids(rows, [id_column]), id_column, text_column, title_column)

    def with_ids_as_text(self) -> Self:
        """Return the texts with ids as text, to join a run that has no types."""
        schema, at = self.rows.schema, self.rows.schema.names.index(self.id_column)
        if is_text(schema.field(at).type):
            return self
        field = pa.field(self.id_column, pa.large_string())

        def tables(names: Sequence[str]) -> Iterator[pa.Table]:
            for table in self.rows.tables(names):
                if self.id_column in names:
                    place = table.column_names.index(self.id_column)
                    table = table.set_column(place, field, as_text(table[self.id_column]))
                yield table

        rows = replace(self.rows, schema=schema.set(at, field), tables=tables)
        return replace(self, rows=rows)

    @property
    def id_type(self) -> pa.DataType:
        """The type of the ids."""
        kind: pa.DataType = self.rows.schema.field(self.id_column).type
        return kind

    def join(
        self, workspace: Workspace, key: str, order: np.ndarray, label: str | None = None
    ) -> Iterator[pa.Table]:
        """Yield the text of each of the run's rows in their order, by a hash join on disk.

        The run's ids are held; the texts only pass by.

        Args:
            workspace: its database has the run's ids, as `load_keys` loads them.
            key: the ids' column in the database.
            order: int64 (n_rows,), the position of each row.
            label: names its files in the workspace; the key by default.

        Returns:
            Tables of `text` large_binary, the characters of its title as `title_chars` int32, and
            `is_there` bool, null where no text has the id.

        Raises:
            InputError: an id of the run has two texts that differ.
        """
        schema = pa.schema([("id", key_type(self.id_type, self.id_column)), *_TEXT])
        query = (
            f"select {ROW_NUMBER}, id, text, title_chars, hash(text) as hash "
            f"from feed join {TABLE} on id = {key}"
        )
        feed, label = Feed(schema, self._keyed(workspace, schema)), label or key
        hashes = workspace.array(f"{label}-hashes", np.uint64, len(order))  # 0: no text yet
        with Shuffle(workspace.folder / f"{label}-texts", _SCHEMA, len(order)) as shuffle:
            for table in workspace.database.tables(query, feed):
                rows, new = table[ROW_NUMBER].to_numpy(), table["hash"].to_numpy() | np.uint64(1)
                before = hashes[rows]
                hashes[rows] = new
                differs = ((before != 0) & (before != new)) | (hashes[rows] != new)
                if differs.any():
                    value = table["id"][int(differs.argmax())].as_py()
                    name = value.decode(errors="replace") if isinstance(value, bytes) else value
                    raise InputError(
                        f"{self.flag} {self.rows.files[0].uri}: {self.id_column} {name!r} is there "
                        "more than once, with different texts"
                    )
                is_there = pa.repeat(True, len(rows))
                columns = [table["text"], table["title_chars"], is_there]
                shuffle.add(pa.table(columns, _SCHEMA), order[rows])
            yield from shuffle.blocks()

    def _keyed(self, workspace: Workspace, schema: pa.Schema) -> Iterator[pa.Table]:
        """Yield all ids as keys, and the texts with their titles."""
        names = [name for name in (self.id_column, self.text_column, self.title_column) if name]
        for table in workspace.watch(f"reading {self.flag}", self.rows.tables(names)):
            text = table[self.text_column].cast(pa.large_string())
            title_chars = pa.repeat(pa.scalar(0, pa.int32()), table.num_rows)
            if self.title_column is not None:
                text = with_titles(table[self.title_column], text)
                title_chars = lengths_of_titles(table[self.title_column])
            keys = as_key(table[self.id_column], self.id_column)
            yield pa.table([keys, text.cast(pa.large_binary()), title_chars], schema)
