"""The dataset that an input is prepared as: pairs with their columns, in the order to write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa

from producer.formats.rows import Rows, schema_with_status
from producer.inputs.columns import first_stage_columns, resolve_columns
from producer.prepare.row_order import load_keys, positions
from producer.tables.shuffle import shuffled
from producer.tables.workspace import Workspace
from rankmill.contract.job import JobSpec
from rankmill.contract.plan import Columns


class Dataset(Protocol):
    """Pairs to write as the prepared input."""

    @property
    def schema(self) -> pa.Schema:
        """The columns, STATUS_COLUMNS included."""

    @property
    def columns(self) -> Columns:
        """The role of each column."""

    def tables(self, workspace: Workspace) -> Iterator[pa.Table]:
        """Yield the pairs in order."""


class Pairs:
    """The pairs of an input of layout `pairs` or `lists`.

    Pairs are brought together by query. Lists are so already, and are brought together only if
    --cluster asks for it.
    """

    def __init__(self, spec: JobSpec, rows: Rows) -> None:
        """Choose the columns to keep.

        Raises:
            InputError: a column is missing or of the wrong type.
        """
        candidates = None if spec.explode else rows.candidates
        columns = resolve_columns(spec, rows.schema, candidates, rows.title)
        roles = (columns.query_id, columns.doc_id, *columns.texts)
        others = rows.schema.names if spec.keep_cols is None else spec.keep_cols
        first = [name for name in first_stage_columns(spec) if name in rows.schema.names]
        names = (*roles, *others, *first)
        self._names = list(dict.fromkeys(name for name in names if name is not None))
        self._is_grouped = spec.layout == "lists" and not spec.cluster
        self._key = columns.group_key
        self._rows = rows
        own = pa.schema([rows.schema.field(name) for name in self._names])
        self.schema = schema_with_status(own)
        self.columns = resolve_columns(spec, self.schema, candidates, rows.title)

    def tables(self, workspace: Workspace) -> Iterator[pa.Table]:
        """Yield the pairs, grouped by query."""
        if self._is_grouped:
            yield from self._rows.tables(self._names)
            return
        n_rows = load_keys(workspace, self._rows, {"query": self._key})
        order = positions(workspace, "query", n_rows)
        tables = workspace.watch("reading the input", self._rows.tables(self._names))
        yield from shuffled(workspace.folder / "pairs", self.schema, tables, order)
