"""Read a finished job's ranked rows in any layout, and find keys that two jobs share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from producer.quality.rankings import finished_job, unfolded
from producer.tables.keys import as_key, id_family, key_type
from rankmill import storage
from rankmill.contract.drift import KeyKind
from rankmill.contract.plan import CANDIDATES_COLUMN
from rankmill.errors import InputError
from rankmill.output.output import Job, Output
from rankmill.tables import parquet

ROW = "row"  # number within the part; for lists, the number of the list
_QUERY, _DOCUMENT = "query", "document"
_RESULTS = pa.schema([("score", pa.float32()), ("rank", pa.int32()), ("position", pa.int64())])
_RANKED = {"score", "rank", "fused_rank"}
_BATCH_ROWS = 64 * 1024
_BATCH_LISTS = 64  # a list may be a thousand rows


@dataclass(frozen=True)
class Ranked:
    """The ranked rows of a finished job."""

    job: Job

    @property
    def output(self) -> Output:
        """The job's output."""
        return self.job.output

    @property
    def order_column(self) -> str:
        """The column that ranks its rows."""
        return self.job.spec.order_column

    @cached_property
    def kept(self) -> dict[tuple[str, KeyKind], str]:
        """The names in the parts of the id and text columns that were kept."""
        columns = self.job.plan.columns
        given: dict[tuple[str, KeyKind], str | None] = {
            (_QUERY, "id"): columns.query_id,
            (_QUERY, "text"): columns.query,
            (_DOCUMENT, "id"): columns.doc_id,
            (_DOCUMENT, "text"): columns.document,
        }
        return {part: columns.kept[name] for part, name in given.items() if name in columns.kept}

    def type_of(self, part: str, kind: KeyKind) -> pa.DataType:
        """Return the type of an id or text column in the parts."""
        name = self.kept[part, kind]
        columns = self.job.plan.columns
        return self.job.plan.schema.field(
            next(column for column, kept in columns.kept.items() if kept == name)
        ).type

    def rows(
        self, shard_index: int, names: Sequence[str], first_row: int = 0, at_once: int | None = None
    ) -> Iterator[pa.Table]:
        """Yield a part's ranked rows from `first_row` on: the named columns and ROW.

        Raises:
            InputError: the part is gone or damaged.
        """
        part = storage.stat(self.output.part_uri(shard_index))
        columns = self.job.plan.columns
        if columns.candidates is None:
            stored, batch_rows = list(names), at_once or _BATCH_ROWS
        else:
            of_candidate = {columns.kept.get(name) for name in columns.candidates}
            own = [name for name in names if name not in of_candidate | _RANKED]
            stored, batch_rows = [*own, CANDIDATES_COLUMN], _BATCH_LISTS
        for table in parquet.read_rows(part, stored, first_row, batch_rows):
            numbers = np.arange(first_row, first_row + table.num_rows)
            first_row += table.num_rows
            numbered = table.append_column(ROW, pa.array(numbers))
            if columns.candidates is not None:
                numbered = unfolded(numbered, [*names, ROW])
            yield numbered


@dataclass(frozen=True)
class Key:
    """A column that names queries, or documents, in both outputs."""

    part: str
    kind: KeyKind

    def column(self, side: Ranked) -> str:
        """Return the column's name in an output."""
        return side.kept[self.part, self.kind]

    def type(self, side: Ranked) -> pa.DataType:
        """Return the column's type as a key."""
        return key_type(side.type_of(self.part, self.kind), self.column(side))


def open_ranked(output: Output) -> Ranked:
    """Open the ranked rows of a finished job.

    Raises:
        InputError: the job has not succeeded.
        JobUnknown: no job was submitted there.
    """
    return Ranked(finished_job(output))


def common_keys(old: Ranked, new: Ranked) -> tuple[Key, Key]:
    """Return the keys of queries and documents: ids if both outputs have them, else texts.

    Raises:
        InputError: there is no common key, or the ids' types differ.
    """
    return _common_key(_QUERY, old, new), _common_key(_DOCUMENT, old, new)


def keyed_rows(side: Ranked, keys: tuple[Key, Key]) -> tuple[pa.Schema, Iterator[pa.Table]]:
    """Return all ranked rows: `query` and `document` as keys, `score`, `rank` and `position`.

    `position` has the part's number in its upper 32 bits and the row within it in the lower 32.
    """
    schema = pa.schema([*((key.part, key.type(side)) for key in keys), *_RESULTS])
    return schema, _keyed(side, keys, schema)


def part_and_row(position: int) -> tuple[int, int]:
    """Split a position into the part's number and the row within it."""
    return position >> 32, position & 0xFFFFFFFF


def _keyed(side: Ranked, keys: tuple[Key, Key], schema: pa.Schema) -> Iterator[pa.Table]:
    names = [key.column(side) for key in keys]
    for shard_index in range(side.job.plan.n_shards):
        rank = side.order_column
        for table in side.rows(shard_index, [*names, "score", rank]):
            arrays = [as_key(table[name], name) for name in names]
            at = table[ROW].to_numpy() + (shard_index << 32)
            yield pa.table([*arrays, table["score"], table[rank], pa.array(at)], schema)


def _common_key(part: str, old: Ranked, new: Ranked) -> Key:
    kinds: tuple[KeyKind, ...] = ("id", "text")
    kind = next((k for k in kinds if (part, k) in old.kept and (part, k) in new.kept), None)
    if kind is None:
        in_old, in_new = (_names(side, part) for side in (old, new))
        raise InputError(
            f"{new.output.uri}: no common key for a {part}: it has {in_new}, {old.output.uri} has "
            f"{in_old}; run one of them again with such a column among --keep-cols"
        )
    types = [side.type_of(part, kind) for side in (old, new)]
    if id_family(types[0]) != id_family(types[1]):
        names = [side.kept[part, kind] for side in (old, new)]
        raise InputError(
            f"{new.output.uri}: column '{names[1]}' is {types[1]}, but '{names[0]}' of "
            f"{old.output.uri} is {types[0]}; ids must be of one type"
        )
    return Key(part, kind)


def _names(side: Ranked, part: str) -> str:
    there = [f"{kind} in '{name}'" for (of, kind), name in side.kept.items() if of == part]
    return " and ".join(there) or "neither id nor text"
