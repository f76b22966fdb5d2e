"""A lake table at one version: the files that its log counts, and what the table says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from producer.inputs.marks import Table
from producer.unify import unified
from rankmill import storage
from rankmill.errors import InputError
from rankmill.parquet import Footer, plain_schema
from rankmill.spec import InputFile, Partition
from rankmill.storage import FileStat

_FIELD_ID = b"PARQUET:field_id"


@dataclass(frozen=True)
class Counted:
    """A data file as the log has it.

    Attributes:
        given: columns that the log gives, not the file; text is read in the column's type.
        n_rows: None where the log does not say.
    """

    uri: str
    size_bytes: int
    n_rows: int | None
    given: Partition = field(default_factory=dict)


@dataclass(frozen=True)
class TableVersion:
    """
    Attributes:
        version: as --input-version takes it, and always the same rows.
        schema: the table's columns at that version.
        field_ids: of Iceberg, the columns' ids, by which its files have them whatever the name.
        takes_names: whether a file without ids has its columns by name.
    """

    table: Table
    version: str
    schema: pa.Schema
    counted: tuple[Counted, ...]
    field_ids: Mapping[str, int] = field(default_factory=dict)
    takes_names: bool = True

    def __str__(self) -> str:
        return f"{self.table.kind} {self.table.place} at version {self.version}"

    def files(self) -> tuple[FileStat, ...]:
        """The counted files as they are now, from one listing of the table where they lie in it.

        Raises:
            InputError: there is none, or one is gone or is not as the log says.
        """
        if not self.counted:
            raise InputError(f"the {self} has no rows")
        folder = self.table.place.rpartition("/metadata/")[0] or self.table.place
        listing = storage.list_place(folder)
        there = {file.uri: file for file in (*listing.inside, *listing.hidden)}
        files = tuple(there.get(each.uri) or _stat(self, each.uri) for each in self.counted)
        for each, file in zip(self.counted, files, strict=True):
            if file.size_bytes != each.size_bytes:
                raise InputError(
                    f"{file.uri} has {file.size_bytes:,} bytes, not the {each.size_bytes:,} of the "
                    f"{self}; restore the file or give another --input-version"
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
        stored = [self._stored(each, footer.n_rows, footer.schema) for each, _, footer in there]
        own = plain_schema(self.schema)
        schema = unified([self.table.place, *(file.uri for file in files)], [own, *stored])
        given = [
            {name: each.given.get(name) for name in own.names if name not in columns.names}
            for each, columns in zip(self.counted, stored, strict=True)
        ]
        return tuple(
            InputFile(
                uri=file.uri,
                n_rows=footer.n_rows,
                size_bytes=file.size_bytes,
                state=file.state,
                partition=values,
            )
            for (_, file, footer), values in zip(there, given, strict=True)
        ), schema

    def _stored(self, each: Counted, n_rows: int, schema: pa.Schema) -> pa.Schema:
        """The table's columns that a file stores, from the schema in its footer.

        Raises:
            InputError: the file has other rows than the log says, or a column by another name.
        """
        if each.n_rows is not None and each.n_rows != n_rows:
            raise InputError(
                f"{each.uri} has {n_rows:,} rows, not the {each.n_rows:,} of the {self}"
            )
        names = self._names_in(each, schema)
        if not self.field_ids:  # whose files have the columns that they are partitioned by, too
            names = [name for name in names if name not in each.given]
        fields = [schema.field(name) for name in names]
        return pa.schema([_in_zone(each, self.schema) for each in plain_schema(pa.schema(fields))])

    def _check_case(self, each: Counted, schema: pa.Schema) -> None:
        """Refuse a column that Spark would find by another case, and that is null here."""
        stored = {name.lower(): name for name in schema.names}
        for name in self.schema.names:
            other = stored.get(name.lower(), name)
            if name not in schema.names and other != name:
                raise InputError(
                    f"{each.uri}: column '{name}' of the {self} is called '{other}' in this file; "
                    "rewrite the table's data files"
                )

    def _names_in(self, each: Counted, schema: pa.Schema) -> Sequence[str]:
        ids = {_id_of(field): field for field in schema if _id_of(field) is not None}
        if not self.field_ids or (not ids and self.takes_names):
            self._check_case(each, schema)
            return [name for name in self.schema.names if name in schema.names]
        if not ids:
            raise InputError(
                f"{each.uri}: its columns have no field ids, and the {self} has no name mapping "
                "for them; rewrite the table's data files"
            )
        found = []
        for name, number in self.field_ids.items():
            stored = ids.get(number)
            if stored is None:
                continue
            if stored.name != name or _ids_below(stored) - _ids_below(self.schema.field(name)):
                raise InputError(
                    f"{each.uri}: column '{name}' of the {self} was renamed, and is "
                    f"'{stored.name}' in this file; rewrite the table's data files"
                )
            found.append(name)
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
            "--input-version, or restore the file"
        ) from error
