"""A lake table at one version: the files that its log counts, and their columns."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa

from producer.lake.detect import Table
from producer.tables.unify import unified
from rankmill import storage
from rankmill.contract.plan import InputFile, Partition
from rankmill.errors import InputError
from rankmill.storage import FileStat
from rankmill.tables.parquet import Footer
from rankmill.tables.schema import plain_schema

_FIELD_ID = b"PARQUET:field_id"


@dataclass(frozen=True)
class Counted:
    """A data file that the log counts.

    Attributes:
        uri: its place.
        size_bytes: its size in the log.
        n_rows: its rows in the log, deleted ones included; None if the log does not have it.
        given: columns that the log gives, not the file; text is cast to the column's type.
        deleted: sorted int64 (n,), the file's rows that no longer count; None if all count.
    """

    uri: str
    size_bytes: int
    n_rows: int | None
    given: Partition = field(default_factory=dict)
    deleted: np.ndarray | None = None


@dataclass(frozen=True)
class TableVersion:
    """A lake table at a fixed version.

    Attributes:
        table: the table.
        version: the version as its flag takes it; it always names the same rows.
        schema: the table's columns at that version.
        counted: the data files that count.
        field_ids: column to the id that files have it by, whatever its name there. Empty if files
            have columns by name alone.
        names: column to the names that files without ids may have it by. If None, such files are
            refused.
        other_names: column to all names that files may have it by, other than the table's.
    """

    table: Table
    version: str
    schema: pa.Schema
    counted: tuple[Counted, ...]
    field_ids: Mapping[str, int] = field(default_factory=dict)
    names: Mapping[str, Sequence[str]] | None = field(default_factory=dict)
    other_names: Mapping[str, Collection[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.table.kind} {self.table.place} at version {self.version}"

    @cached_property
    def deleted(self) -> dict[str, np.ndarray]:
        """URI to the deleted rows, sorted int64 (n,), of files that have some."""
        return {file.uri: file.deleted for file in self.counted if file.deleted is not None}

    def stored_as(self, columns: Sequence[str]) -> list[str]:
        """Return all names that files may have these columns by."""
        others = (name for column in columns for name in self.other_names.get(column, ()))
        return [*columns, *others]

    def files(self) -> tuple[FileStat, ...]:
        """Return the counted files as they are now, from one listing of the table's folder.

        Raises:
            InputError: no row counts, or a file is gone or has another size than in the log.
        """
        n_rows = [file.n_rows for file in self.counted]
        n_deleted = sum(map(len, self.deleted.values()))
        if not self.counted or (None not in n_rows and sum(filter(None, n_rows)) <= n_deleted):
            raise InputError(f"the {self} has no rows")
        folder = self.table.place.rpartition("/metadata/")[0] or self.table.place
        listing = storage.list_place(folder)
        there = {file.uri: file for file in (*listing.inside, *listing.hidden)}
        files = []
        for counted in self.counted:
            try:
                file = there.get(counted.uri) or storage.stat(counted.uri)
            except InputError as error:
                raise InputError(
                    f"{counted.uri} is gone, which the {self} counts, perhaps by a vacuum; give a "
                    f"newer {self.table.version_flag}, or restore the file"
                ) from error
            if file.size_bytes != counted.size_bytes:
                raise InputError(
                    f"{file.uri} has {file.size_bytes:,} bytes, not the {counted.size_bytes:,} of "
                    f"the {self}; restore the file or give another {self.table.version_flag}"
                )
            files.append(file)
        return tuple(files)

    def inputs(
        self, files: Sequence[FileStat], footers: Sequence[Footer]
    ) -> tuple[tuple[InputFile, ...], pa.Schema]:
        """Return the files as a job's, and the table's columns, which files may have narrower.

        Args:
            files: the files, as `files` returns them.
            footers: their footers.

        Raises:
            InputError: a file differs from the log, or no type holds both types of a column.
        """
        own = plain_schema(self.schema)
        schemas, inputs = [own], []
        for counted, file, footer in zip(self.counted, files, footers, strict=True):
            names = self._names_in(counted, footer)
            fields = [footer.schema.field(stored).with_name(name) for name, stored in names.items()]
            stored = plain_schema(pa.schema(fields))
            for at, column in enumerate(stored):
                kind = self.schema.field(column.name).type
                are_times = pa.types.is_timestamp(column.type) and pa.types.is_timestamp(kind)
                if are_times and column.type.tz is None:  # Spark stores instants in UTC so
                    in_zone = column.with_type(pa.timestamp(column.type.unit, kind.tz))
                    stored = stored.set(at, in_zone)
            schemas.append(stored)
            inputs.append(
                InputFile(
                    uri=file.uri,
                    n_rows=footer.n_rows,
                    size_bytes=file.size_bytes,
                    state=file.state,
                    partition={n: counted.given.get(n) for n in own.names if n not in names},
                    names={name: other for name, other in names.items() if name != other},
                )
            )
        uris = [self.table.place, *(file.uri for file in files)]
        return tuple(inputs), unified(uris, schemas)

    def _names_in(self, counted: Counted, footer: Footer) -> dict[str, str]:
        """Return the table's columns that a file stores, with their names there.

        Raises:
            InputError: the file has another number of rows than in the log, or it is not certain
                which of its columns is one of the table's.
        """
        uri, deleted = counted.uri, counted.deleted
        if counted.n_rows is not None and counted.n_rows != footer.n_rows:
            raise InputError(
                f"{uri} has {footer.n_rows:,} rows, not the {counted.n_rows:,} of the {self}"
            )
        if deleted is not None and deleted.max(initial=-1) >= footer.n_rows:
            raise InputError(
                f"{uri} has {footer.n_rows:,} rows, but the {self} deletes its row "
                f"{deleted.max():,}; its metadata are damaged"
            )
        ids = {_id_of(field): field for field in footer.schema if _id_of(field) is not None}
        if self.field_ids and ids:
            return self._names_by_id(uri, ids)
        if self.names is None:
            raise InputError(
                f"{uri}: its columns have no field ids, and the {self} has no name mapping "
                "for them; rewrite the table's data files"
            )
        names = self._names_by_name(uri, footer.schema, self.names)
        if not self.field_ids:  # such files may also have the columns that the log gives
            names = {name: stored for name, stored in names.items() if name not in counted.given}
        return names

    def _names_by_id(self, uri: str, ids: Mapping[int | None, pa.Field]) -> dict[str, str]:
        """Return the table's columns that a file has by their ids, with their names there."""
        names = {}
        for name, number in self.field_ids.items():
            stored = ids.get(number)
            if stored is None:
                continue
            inside = _ids_below(self.schema.field(name))
            if any(id_below for _, id_below in inside) and _ids_below(stored) - inside:
                raise InputError(
                    f"{uri}: in column '{name}' of the {self} a field was renamed after this "
                    "file was written; rewrite the table's data files"
                )
            names[name] = stored.name
        return names

    def _names_by_name(
        self, uri: str, schema: pa.Schema, aliases: Mapping[str, Sequence[str]]
    ) -> dict[str, str]:
        """Return the table's columns that a file has by name, with their names there.

        A column that Spark would find by a name of another case is refused, not null.
        """
        there = {name.lower(): name for name in schema.names}
        names = {}
        for name in self.schema.names:
            may_be = aliases.get(name, (name,))
            stored = [other for other in may_be if other in schema.names]
            cased = [there[other.lower()] for other in may_be if other.lower() in there]
            if len(stored) > 1:
                raise InputError(
                    f"{uri}: both '{stored[0]}' and '{stored[1]}' are column '{name}' of the "
                    f"{self}; rewrite the table's data files"
                )
            if cased and not stored:
                raise InputError(
                    f"{uri}: column '{name}' of the {self} is called '{cased[0]}' in this "
                    "file; rewrite the table's data files"
                )
            if stored:
                names[name] = stored[0]
        return names


def _id_of(column: pa.Field) -> int | None:
    number = (column.metadata or {}).get(_FIELD_ID)
    return None if number is None else int(number)


def _ids_below(column: pa.Field, path: str = "") -> set[tuple[str, int | None]]:
    """Return paths in a nested column with their ids; writers differ in naming list items."""
    kind, paths = column.type, set()
    for at in range(kind.num_fields):
        inner = kind.field(at)
        name = f"{path}/{inner.name if pa.types.is_struct(kind) else at}"
        paths |= {(name, _id_of(inner)), *_ids_below(inner, name)}
    return paths
