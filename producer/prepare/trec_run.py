"""Join the rows of a TREC run with their texts: each text is read once, and none is held."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from producer.formats.rows import Rows, schema_with_status, with_job_ids
from producer.inputs.columns import first_stage_columns, resolve_columns
from producer.prepare.row_order import ROW_NUMBER, TABLE, load_keys, positions
from producer.prepare.texts import Texts
from producer.tables.keys import id_family
from producer.tables.shuffle import shuffled
from producer.tables.workspace import Workspace
from rankmill.contract.job import JobSpec
from rankmill.contract.plan import (
    ORIGIN_COLUMNS,
    REFUSAL_COLUMN,
    STATUS_COLUMNS,
    TITLE_CHARS_COLUMN,
    Columns,
)
from rankmill.errors import InputError
from rankmill.tables.ids import named


class JoinedRun:
    """A run with its texts, as the dataset to prepare.

    Attributes:
        schema: ids, texts, the run's other columns, STATUS_COLUMNS.
        columns: the role of each column.
    """

    def __init__(
        self,
        spec: JobSpec,
        run: Rows,
        queries: Texts,
        corpus: Texts,
        prompts: Texts | None = None,
    ) -> None:
        """Choose the columns.

        Raises:
            InputError: a column is missing, or the types of ids and texts' ids differ.
        """
        self._query_id = _id_column(run, spec.query_id_col, "query_id")
        self._doc_id = _id_column(run, spec.doc_id_col, "doc_id")
        ids = (self._query_id, self._doc_id)
        run = with_job_ids(run, ids)
        for name, texts in zip(ids, (queries, corpus), strict=True):
            _check_type(run, name, texts)
        self._spec, self._run, self._queries, self._corpus = spec, run, queries, corpus
        self._prompts = prompts
        needed = None if spec.keep_cols is None else {*spec.keep_cols, *first_stage_columns(spec)}
        self._others = [
            name
            for name in run.schema.names
            if name not in ids and (needed is None or name in needed)
        ]
        self._has_titles = spec.has_passages and corpus.title_column is not None
        self.schema = self._schema()
        self.columns = self._columns()

    def _schema(self) -> pa.Schema:
        """Return the columns of the pairs.

        Raises:
            InputError: the run has a column of its own with a text's name.
        """
        spec, field = self._spec, self._run.schema.field
        own = [
            field(self._query_id).with_name(spec.query_id_col or "query_id"),
            field(self._doc_id).with_name(spec.doc_id_col or "doc_id"),
            pa.field(spec.query_col, pa.string()),
            pa.field(spec.document_col, pa.string()),
            *([pa.field(spec.prompt_col, pa.string())] if spec.prompt_col is not None else []),
            *map(field, self._others),
        ]
        if self._has_titles:
            own.append(pa.field(TITLE_CHARS_COLUMN, pa.int32()))
        schema = schema_with_status(pa.schema(own))
        twice = [name for name in schema.names if schema.names.count(name) > 1]
        if twice:
            raise InputError(
                f"{self._run.files[0].uri}: the run has a column '{twice[0]}' of its own; leave it "
                "out by --keep-cols, or name the texts otherwise"
            )
        return schema

    def _columns(self) -> Columns:
        columns = resolve_columns(self._spec, self.schema)
        changes: dict[str, Any] = {"corpus_title": self._corpus.title_column}
        if self._has_titles:
            kept = {name: as_ for name, as_ in columns.kept.items() if name != TITLE_CHARS_COLUMN}
            changes |= {"kept": kept, "title_chars": TITLE_CHARS_COLUMN}
        return columns.model_copy(update=changes)

    def tables(self, workspace: Workspace) -> Iterator[pa.Table]:
        """Yield the run's rows with their texts, grouped by query.

        Raises:
            InputError: a pair is there twice and duplicates fail, or an id has two texts.
        """
        ids = {"query": self._query_id, "document": self._doc_id}
        n_rows = load_keys(workspace, self._run, ids)
        if self._spec.duplicates == "fail":
            self._check_pairs_once(workspace)
        order = positions(workspace, "query", n_rows)
        names = [self._query_id, self._doc_id, *self._others]
        run = workspace.watch("reading the run", self._run.tables(names))
        schema = schema_with_status(pa.schema([self._run.schema.field(name) for name in names]))
        in_order = [
            shuffled(workspace.folder / "run", schema, run, order),
            self._queries.join(workspace, "query", order),
            self._corpus.join(workspace, "document", order),
        ]
        if self._prompts is not None:
            in_order.append(self._prompts.join(workspace, "query", order, "prompt"))
        for own, query, document, *prompts in _side_by_side(in_order):
            refusal = pc.coalesce(
                own[REFUSAL_COLUMN],
                _refusal_if_missing(query, "query is not in --queries"),
                _refusal_if_missing(document, "document is not in --corpus"),
            )
            arrays = [
                own[self._query_id],
                own[self._doc_id],
                _as_string(query["text"]),
                _as_string(document["text"]),
                *(_as_string(prompt["text"]) for prompt in prompts),
                *(own[name] for name in self._others),
                *([document["title_chars"]] if self._has_titles else []),
                refusal,
                *(own[name] for name in STATUS_COLUMNS[1:]),
            ]
            yield pa.table(arrays, self.schema)

    def _check_pairs_once(self, workspace: Workspace) -> None:
        twice = workspace.database.rows(
            f"select min({ROW_NUMBER}), max({ROW_NUMBER}) from {TABLE} "
            "where query is not null and document is not null "
            "group by query, document having count(*) > 1 order by 1 limit 1"
        )
        if twice:
            (query_id, doc_id, *first), (*_, file, row) = map(self._row, twice[0])
            raise InputError(
                f"{self._query_id} {query_id} has {self._doc_id} {doc_id} twice: row {first[1]} of "
                f"{first[0]} and row {row} of {file}, counted from 0; --duplicates keep allows it"
            )

    def _row(self, number: int) -> tuple[str, str, str, int]:
        """Return a row's query id and document id as text, its file and its number there."""
        for table in self._run.tables([self._query_id, self._doc_id]):
            if number < table.num_rows:
                query_id, doc_id = (named(table.column(at), number) for at in (0, 1))
                file, row = (table[name][number].as_py() for name in ORIGIN_COLUMNS)
                return query_id, doc_id, file, row
            number -= table.num_rows
        raise AssertionError("the run has become shorter")


def _check_type(run: Rows, name: str, texts: Texts) -> None:
    """Refuse ids of another type than those of their texts.

    Raises:
        InputError: naming both columns.
    """
    kind = run.schema.field(name).type
    if id_family(kind) != id_family(texts.id_type):
        raise InputError(
            f"{run.files[0].uri}: column '{name}' is {kind}, but '{texts.id_column}' of "
            f"{texts.flag} {texts.rows.files[0].uri} is {texts.id_type}; ids must be of one type"
        )


def _id_column(run: Rows, wanted: str | None, usual: str) -> str:
    """Return the run's id column: `wanted` may be a name in the texts only, so `usual` will do."""
    for name in (wanted, usual):
        if name in run.schema.names:
            return str(name)
    there = ", ".join(run.schema.names) or "none"
    raise InputError(
        f"{run.files[0].uri}: column '{wanted or usual}' is missing; the columns there are: {there}"
    )


def _side_by_side(streams: Sequence[Iterator[pa.Table]]) -> Iterator[list[pa.Table]]:
    """Yield the same rows of each stream of tables; the streams' tables differ in size."""
    held: list[Any] = [next(stream, None) for stream in streams]
    while not all(table is None for table in held):
        n_rows = min(table.num_rows for table in held)
        yield [table.slice(0, n_rows) for table in held]
        held = [
            table.slice(n_rows) if table.num_rows > n_rows else next(stream, None)
            for table, stream in zip(held, streams, strict=True)
        ]


def _refusal_if_missing(texts: pa.Table, reason: str) -> pa.Array:
    no_refusal = pa.scalar(None, pa.string())
    return pc.if_else(texts["is_there"].is_null(), pa.scalar(reason), no_refusal)


def _as_string(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Cast bytes to strings unchecked: scoring rejects a text that is not UTF-8, not the job."""
    options = pc.CastOptions(target_type=pa.string(), allow_invalid_utf8=True)
    return pc.cast(column, options=options)
