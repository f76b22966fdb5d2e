"""Read a Delta table's log: the files that count at a version, and their partition values."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from producer.lake.detect import Table
from producer.lake.table_version import Counted, TableVersion
from rankmill import storage
from rankmill.contract.plan import Partition
from rankmill.errors import InputError
from rankmill.shown import clipped

# Features that do not change what the files hold, or that this module handles.
_READABLE = {
    "deletionVectors",
    "columnMapping",
    "timestampNtz",
    "typeWidening",
    "typeWidening-preview",
    "v2Checkpoint",
    "vacuumProtocolCheck",
}
_PHYSICAL_NAME, _COLUMN_ID = b"delta.columnMapping.physicalName", b"delta.columnMapping.id"


def open_delta(table: Table, version: str | None) -> TableVersion:
    """Return a Delta table at a version or a time, or at its newest version.

    Raises:
        InputError: the package is missing, there is no such version, the log is damaged, or the
            table uses a feature that is not read.
    """
    try:
        from deltalake import DeltaTable
    except ImportError as error:
        raise InputError(
            f"{table.place} is a {table.kind}, which is read through its log: "
            "pip install 'rankmill[delta]'"
        ) from error
    options = storage.connection_options(table.place)
    uri = _package_uri(table.place)
    try:
        number = int(version) if version is not None and version.isdecimal() else None
        opened = DeltaTable(uri, version=number, storage_options=options)
        if version is not None and number is None:
            opened.load_as_version(_version_at(table, opened, version))
        protocol = opened.protocol()
        unknown = sorted(set(protocol.reader_features or ()) - _READABLE)
        if unknown or protocol.min_reader_version > 3:
            what = unknown[0] if unknown else f"reader version {protocol.min_reader_version}"
            raise table.unread(what)
        schema = pa.schema(opened.schema().to_arrow())
        counted = _counted(table, opened)
    except InputError:
        raise
    except Exception as error:  # the package has a class for nearly each fault
        message = re.sub(r"\x1b\[\d+m", "", str(error)).partition("<unknown>")[0]
        reason = clipped(" ".join(message.removesuffix("0: ").split()), 300)
        wanted = "" if version is None else f" at {table.version_flag} {version}"
        where = f"the {table.kind} {table.place}{wanted}"
        raise InputError(f"{where} cannot be read: {reason}") from error
    return TableVersion(
        table, str(opened.version()), schema, counted, *_column_names(table, opened, schema)
    )


def _version_at(table: Table, opened: Any, time: str) -> int:
    """Return the version that a table had at a time, from the times in its commits."""
    try:
        at = datetime.fromisoformat(time)
    except ValueError:
        at = datetime.min
    if at.tzinfo is None:
        raise InputError(
            f"{table.version_flag} {time} is neither a version of the {table.kind} {table.place} "
            "nor a time with its zone, such as 2026-11-27T02:00:00Z"
        )
    commits = [commit for commit in opened.history() if commit.get("timestamp") is not None]
    before = [
        commit["version"]
        for commit in commits
        if commit["timestamp"] <= round(at.timestamp() * 1000)
    ]
    if not before or at > datetime.now(UTC):
        when = "is yet to come" if before else "is before its first commit"
        raise InputError(
            f"the {table.kind} {table.place} has no version at {table.version_flag} {time}, which "
            f"{when}"
        )
    return int(max(before))


def _package_uri(place: str) -> str:
    """Return a place as the URI that the package takes, where a `#` or `?` ends the path.

    Raises:
        InputError: the package would open another folder.
    """
    if "%" in place or "\\" in place:
        raise InputError(
            f"{place} is a Delta table in a folder with a % or \\ in its name, for which deltalake "
            "would open another; rename it"
        )
    if storage.is_local(place):
        return Path(place).as_uri()
    scheme, _, path = place.partition("://")
    return f"{scheme}://{quote(path)}"


def _column_names(
    table: Table, opened: Any, schema: pa.Schema
) -> tuple[dict[str, int], dict[str, tuple[str]] | None, dict[str, tuple[str]]]:
    """Return the ids or names that files have columns by: the last fields of `TableVersion`."""
    mode = opened.metadata().configuration.get("delta.columnMapping.mode", "none")
    if mode == "none":
        return {}, {}, {}
    physical = {}
    for column in schema:
        _check_nested(table, column)
        physical[column.name] = (_physical_name(column),)
    if mode == "name":
        return {}, physical, physical
    ids = {column.name: int(column.metadata[_COLUMN_ID]) for column in schema}
    return ids, None, physical


def _physical_name(column: pa.Field) -> str:
    name: bytes = (column.metadata or {}).get(_PHYSICAL_NAME, column.name.encode())
    return name.decode()


def _check_nested(table: Table, column: pa.Field) -> None:
    """Refuse a column with an inner field that files have by another name than the table."""
    for at in range(column.type.num_fields):
        inner = column.type.field(at)
        if _physical_name(inner) != inner.name:
            where = f"column '{inner.name}' inside another has another name in files"
            raise table.unread(f"column mapping ({where})")
        _check_nested(table, inner)


def _counted(table: Table, opened: Any) -> tuple[Counted, ...]:
    """Return the files that count, with the values of partition columns and deleted rows."""
    deleted = {}
    for batch in pa.RecordBatchReader.from_stream(opened.deletion_vectors()):
        kept = batch.column("selection_vector")
        for at, path in enumerate(batch.column("filepath").to_pylist()):
            mask = kept[at].values.to_numpy(zero_copy_only=False)
            deleted[_uri(table, path)] = np.flatnonzero(~mask)
    actions = pa.table(opened.get_add_actions())
    columns = opened.metadata().partition_columns
    given: list[Partition] = [{} for _ in range(actions.num_rows)]
    if columns and actions.num_rows:
        values = actions["partition"].combine_chunks()
        for name in columns:
            column = pc.struct_field(values, [name])
            if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
                raise table.unread(f"a partition column of bytes ('{name}')")
            for partition, text in zip(given, column.cast(pa.string()).to_pylist(), strict=True):
                partition[name] = text
    files = [
        Counted(uri := _uri(table, path), size, n_rows, values, deleted.pop(uri, None))
        for path, size, n_rows, values in zip(
            *(actions[name].to_pylist() for name in ("path", "size_bytes", "num_records")),
            given,
            strict=True,
        )
    ]
    if deleted:  # else those rows would be scored
        raise table.unread(f"deletion vectors of {min(deleted)}, which it does not count")
    return tuple(sorted(files, key=lambda file: file.uri))


def _uri(table: Table, path: str) -> str:
    """Return a file's place; the log has a URI, absolute or relative to the table's folder."""
    name = unquote(path)
    if "://" in path or path.startswith("file:/"):
        return storage.absolute(name.replace("file:/", "/", 1) if name[5:8] == "/" else name)
    return storage.absolute(name) if name.startswith("/") else f"{table.place}/{name}"
