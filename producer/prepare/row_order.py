"""The order of a prepared dataset's rows: queries as they first appear, rows as in the input."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from producer.formats.rows import Rows
from producer.tables.database import Feed
from producer.tables.keys import as_key, key_type
from producer.tables.workspace import Workspace

TABLE = "rows"
ROW_NUMBER = "n"


def load_keys(workspace: Workspace, rows: Rows, columns: dict[str, str]) -> int:
    """Create the database table `rows` from columns of an input, and return its number of rows.

    Args:
        workspace: has the database.
        rows: the input.
        columns: name in the table to name in the input. The table also has ROW_NUMBER, from 0.

    Raises:
        InputError: a column's values cannot be compared.
    """
    names = list(columns.values())
    fields = [(key, key_type(rows.schema.field(name).type, name)) for key, name in columns.items()]
    schema = pa.schema([*fields, (ROW_NUMBER, pa.int64())])

    def keys() -> Iterator[pa.Table]:
        row = 0
        for table in workspace.watch("reading ids", rows.tables(names)):
            numbers = pa.array(np.arange(row, row + table.num_rows))
            yield pa.table([*(as_key(table[name], name) for name in names), numbers], schema)
            row += table.num_rows

    workspace.database.run(f"create table {TABLE} as select * from feed", Feed(schema, keys()))
    [(n_rows,)] = workspace.database.rows(f"select count(*) from {TABLE}")
    return int(n_rows)


def positions(workspace: Workspace, key: str, n_rows: int) -> np.ndarray:
    """Return the position of each row that `load_keys` has read: int64 (n_rows,), on disk.

    A row without a key stays behind the query group that began last before it. `key` is the
    table's column that names the query group.
    """
    query = (
        f"select {ROW_NUMBER} from {TABLE} left join "
        f"(select {key}, min({ROW_NUMBER}) as first from {TABLE} group by {key}) using ({key})"
        f" order by coalesce(first, {ROW_NUMBER}), {ROW_NUMBER}"
    )
    order = workspace.array("positions", np.int64, n_rows)
    position = 0
    for table in workspace.database.tables(query):
        order[table[ROW_NUMBER].to_numpy()] = np.arange(position, position + table.num_rows)
        position += table.num_rows
    return order
