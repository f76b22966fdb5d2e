"""A lake table at one version: the files that its log counts, and what the table says of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa

from producer.lake.detect import Table
from producer.tables.unify import unified
from rankmill import storage
from rankmill.contract.job import InputFile, Partition
from rankmill.errors import InputError
from rankmill.storage import FileStat
from rankmill.tables.parquet import Footer, plain_schema

_FIELD_ID = b"PARQUET:field_id"


@dataclass(frozen=True)
class Counted:
    """A data file as the log has it.

    Attributes:
        given: columns that the log gives, not the file; text is read in the column's type.
        n_rows: None where the log does not say.
        deleted: int64 (n,), rows of the file, in order, that the table does not have any more;
            None of a file whose rows all count.
    """

    uri: str
    size_bytes: int
    n_rows: int | None
    given: Partition = field(default_factory=dict)
    deleted: np.ndarray | None = None


@dataclass(frozen=True)
class TableVersion:
    """
    Attributes:
        version: as its flag takes it, and always the same rows.
        schema: the table's columns at that version.
        field_ids: the columns' ids, by which files have them whatever the name; none where files
            have columns by name alone.
        names: of each column those that files may have it by; by names alone where there are no
            ids, and of Iceberg in files without ids, which are refused where this is None.
        other_names: all names that files may have a column by, other than the table's.
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
        """Of each file that has some, the rows that do not count."""
        return {each.uri: each.deleted for each in self.counted if each.deleted is not None}

    def stored_as(self, columns: Sequence[str]) -> list[str]:
        """All names that files may have these columns by."""
        return [*columns, *(name for each in columns for name in self.other_names.get(each, ()))]

    def files(self) -> tuple[FileStat, ...]:
        """The counted files as they are now, from one listing of the table where they lie in it.

        Raises:
            InputError: there is none, or one is gone or is not as the log says.
        """
        n_rows = [each.n_rows for each in self.counted]
        n_deleted = sum(map(len, self.deleted.values()))
        if not self.counted or (None not in n_rows and sum(filter(None, n_rows)) <= n_deleted):
            raise InputError(f"the {self} has no rows")
        folder = self.table.place.rpartition("/metadata/")[0] or self.table.place
        listing = storage.list_place(folder)
        there = {file.uri: file for file in (*listing.inside, *listing.hidden)}
        files = tuple(there.get(each.uri) or _stat(self, each.uri) for each in self.counted)
        for each, file in zip(self.counted, files, strict=True):
            if file.size_bytes != each.size_bytes:
                raise InputError(
                    f"{file.uri} has {file.size_bytes:,} bytes, not the {each.size_bytes:,} of the "
                    f"{self}; restore the file or give another {self.table.version_flag}"
                )
        return files

    def inputs(
        self, files: Sequence[FileStat], footers: Sequence[Footer]
    ) -> tuple[tuple[InputFile, ...], pa.Schema]:
        """The files of a job, and the columns: the table's, which files may have narrower or not.

        Raises:
            InputError: a file is not as the log says, or its types are other ones.
        """
        there = list(zip(self.counted, files, footers, strict=True))
        names = [self._names_in(each, footer) for each, _, footer in there]
        stored = [
            self._stored(found, footer.schema)
            for found, (_, _, footer) in zip(names, there, strict=True)
        ]
        own = plain_schema(self.schema)
        schema = unified([self.table.place, *(file.uri for file in files)], [own, *stored])
        given = [
            {name: each.given.get(name) for name in own.names if name not in found}
            for each, found in zip(self.counted, names, strict=True)
        ]
        return tuple(
            InputFile(
                uri=file.uri,
                n_rows=footer.n_rows,
                size_bytes=file.size_bytes,
                state=file.state,
                partition=values,
                names={name: other for name, other in found.items() if name != other},
            )
            for (_, file, footer), values, found in zip(there, given, names, strict=True)
        ), schema

    def _stored(self, names: Mapping[str, str], schema: pa.Schema) -> pa.Schema:
        """The table's columns that a file stores, from the schema in its footer."""
        fields = [schema.field(stored).with_name(name) for name, stored in names.items()]
        return pa.schema([_in_zone(each, self.schema) for each in plain_schema(pa.schema(fields))])

    def _names_in(self, each: Counted, footer: Footer) -> dict[str, str]:
        """The table's columns that a file stores, and by which name.

        Raises:
            InputError: the file has other rows than the log says, or a column that is not found
                for sure.
        """
        if each.n_rows is not None and each.n_rows != footer.n_rows:
            raise InputError(
                f"{each.uri} has {footer.n_rows:,} rows, not the {each.n_rows:,} of the {self}"
            )
        if each.deleted is not None and each.deleted.max(initial=-1) >= footer.n_rows:
            raise InputError(
                f"{each.uri} has {footer.n_rows:,} rows, but the {self} deletes its row "
                f"{each.deleted.max():,}; its metadata are damaged"
            )
        ids = {_id_of(field): field for field in footer.schema if _id_of(field) is not None}
        if self.field_ids and ids:
            return self._names_by_id(each, ids)
        if self.names is None:
            raise InputError(
                f"{each.uri}: its columns have no field ids, and the {self} has no name mapping "
                "for them; rewrite the table's data files"
            )
        found = self._names_by_name(each, footer.schema)
        if not self.field_ids:  # whose files have the columns that they are partitioned by, too
            found = {name: stored for name, stored in found.items() if name not in each.given}
        return found

    def _names_by_id(self, each: Counted, ids: Mapping[int | None, pa.Field]) -> dict[str, str]:
        found = {}
        for name, number in self.field_ids.items():
            stored = ids.get(number)
            if stored is None:
                continue
            inside = _ids_below(self.schema.field(name))
            if any(each for _, each in inside) and _ids_below(stored) - inside:
                raise InputError(
                    f"{each.uri}: in column '{name}' of the {self} a field was renamed after this "
                    "file was written; rewrite the table's data files"
                )
            found[name] = stored.name
        return found

    def _names_by_name(self, each: Counted, schema: pa.Schema) -> dict[str, str]:
        """Columns by name; one that Spark would find by another case is refused, not null."""
        assert self.names is not None
        there = {name.lower(): name for name in schema.names}
        found = {}
        for name in self.schema.names:
            names = self.names.get(name, (name,))
            stored = [other for other in names if other in schema.names]
            cased = [there[other.lower()] for other in names if other.lower() in there]
            if len(stored) > 1:
                raise InputError(
                    f"{each.uri}: both '{stored[0]}' and '{stored[1]}' are column '{name}' of the "
                    f"{self}; rewrite the table's data files"
                )
            if cased and not stored:
                raise InputError(
                    f"{each.uri}: column '{name}' of the {self} is called '{cased[0]}' in this "
                    "file; rewrite the table's data files"
                )
            if stored:
                found[name] = stored[0]
        return found


def _in_zone(stored: pa.Field, table: pa.Schema) -> pa.Field:
    """Times without a zone, as Spark stores instants, are in UTC where the table has a zone."""
    kind = table.field(stored.name).type
    if pa.types.is_timestamp(stored.type) and pa.types.is_timestamp(kind) and not stored.type.tz:
        return stored.with_type(pa.timestamp(stored.type.unit, kind.tz))
    return stored


def _id_of(column: pa.Field) -> int | None:
    number = (column.metadata or {}).get(_FIELD_ID)
    return None if number is None else int(number)


def _ids_below(column: pa.Field, path: str = "") -> set[tuple[str, int | None]]:
    """Paths in a nested column with the ids there; lists' own names for their values differ."""
    kind, found = column.type, set()
    for at in range(kind.num_fields):
        inner = kind.field(at)
        name = f"{path}/{inner.name if pa.types.is_struct(kind) else at}"
        found |= {(name, _id_of(inner)), *_ids_below(inner, name)}
    return found


def _stat(version: TableVersion, uri: str) -> FileStat:
    try:
        return storage.stat(uri)
    except InputError as error:
        raise InputError(
            f"{uri} is gone, which the {version} counts, perhaps by a vacuum; give a newer "
            f"{version.table.version_flag}, or restore the file"
        ) from error
