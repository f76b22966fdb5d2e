"""The order of a prepared dataset: queries as they first appear, each one's rows as they came."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from producer.formats.rows import Rows
from producer.tables.database import Feed
from producer.tables.keys import as_key, key_type
from producer.tables.workspace import Workspace

TABLE = "rows"
ROW_NUMBER = "n"


def load_keys(workspace: Workspace, rows: Rows, columns: dict[str, str]) -> int:
    """The database table `rows`: columns of an input as keys, with ROW_NUMBER from 0 on.

    Args:
        columns: name in the table to name in the input.

    Returns:
        The number of rows.

    Raises:
        InputError: a column's values cannot be told apart.
    """
    names = list(columns.values())
    fields = [(key, key_type(rows.schema.field(name).type, name)) for key, name in columns.items()]
    schema = pa.schema([*fields, (ROW_NUMBER, pa.int64())])
    tables = workspace.watch("reading ids", rows.tables(names))
    feed = Feed(schema, _numbered(schema, names, tables))
    workspace.database.run(f"create table {TABLE} as select * from feed", feed)
    [(n_rows,)] = workspace.database.rows(f"select count(*) from {TABLE}")
    return int(n_rows)


def positions(workspace: Workspace, key: str, n_rows: int) -> np.ndarray:
    """Where each row that `load_keys` has read goes: int64 (n_rows,), on disk.

    A row without a key stays behind the query group that began last before it.

    Args:
        key: the column of the table that names the query group.
    """
    query = (
        f"select {ROW_NUMBER} from {TABLE} left join "
        f"(select {key}, min({ROW_NUMBER}) as first from {TABLE} group by {key}) using ({key})"
        f" order by coalesce(first, {ROW_NUMBER}), {ROW_NUMBER}"
    )
    found = workspace.array("positions", np.int64, n_rows)
    position = 0
    for table in workspace.database.tables(query):
        found[table[ROW_NUMBER].to_numpy()] = np.arange(position, position + table.num_rows)
        position += table.num_rows
    return found


def _numbered(
    schema: pa.Schema, names: list[str], tables: Iterable[pa.Table]
) -> Iterator[pa.Table]:
    row = 0
    for table in tables:
        numbers = pa.array(np.arange(row, row + table.num_rows))
        yield pa.table([*(as_key(table[name], name) for name in names), numbers], schema)
        row += table.num_rows
