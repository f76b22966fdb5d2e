"""The order of a prepared dataset: queries as they first appear, each one's rows as they came."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from producer.prepare.database import Feed
from producer.prepare.rows import Rows
from producer.prepare.workspace import Workspace
from rankmill import ids
from rankmill.errors import InputError
from rankmill.exact import Inexact

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


def key_type(kind: pa.DataType, name: str) -> pa.DataType:
    """What `as_key` makes of a column of this type."""
    return as_key(pa.chunked_array([], kind), name).type


def as_key(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Values that DuckDB compares as Arrow does, as `rankmill.ids` has them.

    Raises:
        InputError: the column is a list or a struct, say, or has a fraction.
    """
    try:
        return ids.as_key(column)
    except Inexact as error:
        raise InputError(
            f"column '{name}' has the id {error}, which is not whole; write it as text"
        ) from error
    except pa.ArrowNotImplementedError as error:
        raise InputError(f"column '{name}' is {column.type}, which cannot be an id") from error


def _numbered(
    schema: pa.Schema, names: list[str], tables: Iterable[pa.Table]
) -> Iterator[pa.Table]:
    row = 0
    for table in tables:
        numbers = pa.array(np.arange(row, row + table.num_rows))
        yield pa.table([*(as_key(table[name], name) for name in names), numbers], schema)
        row += table.num_rows
