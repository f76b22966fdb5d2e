"""The canonical dataset that an input of any layout becomes: its columns, and its rows in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa

from producer.formats.rows import Rows, schema_with_status
from producer.inputs.columns import resolve_columns
from producer.prepare.order import load_keys, positions
from producer.tables.shuffle import shuffled
from producer.tables.workspace import Workspace
from rankmill.contract.job import Columns, JobSpec


class Dataset(Protocol):
    @property
    def schema(self) -> pa.Schema: ...

    @property
    def columns(self) -> Columns: ...

    def tables(self, workspace: Workspace) -> Iterator[pa.Table]: ...


class PairsAsTheyCome:
    """Pairs that are clustered already, or that need not be."""

    def __init__(
        self,
        spec: JobSpec,
        rows: Rows,
        candidates: tuple[str, ...] | None = None,
        title: str | None = None,
    ) -> None:
        """
        Args:
            candidates, title: as of `resolve_columns`.

        Raises:
            InputError: a column is missing or of the wrong type.
        """
        columns = resolve_columns(spec, rows.schema, candidates, title)
        roles = (columns.query_id, columns.doc_id, *columns.texts)
        others = rows.schema.names if spec.keep_cols is None else spec.keep_cols
        self._names = list(dict.fromkeys(name for name in (*roles, *others) if name is not None))
        self._key = columns.group_key
        self._rows = rows
        own = pa.schema([rows.schema.field(name) for name in self._names])
        self.schema = schema_with_status(own)
        self.columns = resolve_columns(spec, self.schema, candidates, title)

    def tables(self, workspace: Workspace) -> Iterator[pa.Table]:
        return self._rows.tables(self._names)


class ClusteredPairs(PairsAsTheyCome):
    """Pairs with the rows of each query brought together."""

    def tables(self, workspace: Workspace) -> Iterator[pa.Table]:
        n_rows = load_keys(workspace, self._rows, {"query": self._key})
        order = positions(workspace, "query", n_rows)
        tables = workspace.watch("reading the input", super().tables(workspace))
        yield from shuffled(workspace.folder / "pairs", self.schema, tables, order)
