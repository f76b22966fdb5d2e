"""Read an Iceberg table's metadata: the files of a snapshot, and their names for columns."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from producer.lake.detect import METADATA_FILE, Table
from producer.lake.table_version import Counted, TableVersion
from rankmill import storage
from rankmill.contract.plan import Partition
from rankmill.errors import InputError, RankmillError
from rankmill.shown import clipped
from rankmill.tables.parquet import DamagedRowGroup, read_rows

_NAMED = re.compile(r"iceberg://([^/]+)/([^/]+\.[^/]+)", re.IGNORECASE)
_MAX_FORMAT = 2
_EQUALITY = "equality deletes"
_POSITIONS = pa.schema([("file_path", pa.string()), ("pos", pa.int64())])
_BATCH_ROWS = 64 * 1024
_NUMBER = re.compile(r"v?(\d+)[-.].*")


def located(place: str) -> str:
    """Return the newest metadata file of `iceberg://CATALOG/NAMESPACE.TABLE`, else the place.

    Raises:
        InputError: the package is missing, pyiceberg's settings have no such catalog, or the
            catalog has no such table.
    """
    name = _NAMED.fullmatch(place)
    if name is None:
        if place.lower().startswith("iceberg:"):
            raise InputError(f"{place}: write iceberg://CATALOG/NAMESPACE.TABLE")
        return place
    try:
        from pyiceberg.catalog import load_catalog
    except ImportError as error:
        raise InputError(
            f"{place} is an Iceberg table, which a catalog knows: pip install 'rankmill[iceberg]'"
        ) from error
    try:
        location = load_catalog(name[1]).load_table(name[2]).metadata_location
    except Exception as error:  # not quoted: it may hold a catalog's password
        raise InputError(
            f"{place}: pyiceberg's catalog '{name[1]}' gives no table '{name[2]}' "
            f"({type(error).__name__}); PYICEBERG_CATALOG__{name[1].upper()}__URI or "
            "~/.pyiceberg.yaml says where it is"
        ) from error
    from producer.lake.iceberg_files import normal_place

    return normal_place(location)


def open_iceberg(table: Table, version: str | None) -> TableVersion:
    """Return an Iceberg table in a snapshot, named by id, branch or tag, or in its current one.

    Raises:
        InputError: the package is missing; there is no such snapshot; the metadata are damaged or
            may not be the newest; or the table uses a feature that is not read.
    """
    try:
        from pyiceberg.catalog.noop import NoopCatalog
        from pyiceberg.serializers import FromInputFile
        from pyiceberg.table import StaticTable
    except ImportError as error:
        raise InputError(
            f"{table.place} is an {table.kind}, which is read through its metadata: "
            "pip install 'rankmill[iceberg]'"
        ) from error
    from producer.lake.iceberg_files import StoredFiles  # needs the package

    location = _metadata_file(table)
    io = StoredFiles()
    try:
        metadata = FromInputFile.table_metadata(io.new_input(location))
        # Not by StaticTable.from_metadata: there the table's properties can name a class to load.
        opened = StaticTable(("static", location), metadata, location, io, NoopCatalog("static"))
        if metadata.format_version > _MAX_FORMAT:
            raise table.unread(f"format version {metadata.format_version}")
        snapshot, schema_id = _snapshot(table, metadata, version)
        columns = next(each for each in metadata.schemas if each.schema_id == schema_id)
        names = {field.field_id: field.name for field in columns.fields}
        tasks = list(opened.scan(snapshot_id=snapshot.snapshot_id).plan_files())
        schema = columns.as_arrow()
        specs = metadata.specs()
        mapping = metadata.name_mapping()
        mapped = None
        if mapping is not None:
            by_id = {entry.field_id: list(entry.names) for entry in mapping}
            mapped = {name: by_id.get(field_id, []) for field_id, name in names.items()}
        had: dict[int, set[str]] = defaultdict(set)
        for then in metadata.schemas:
            for field in then.fields:
                had[field.field_id].add(field.name)
    except RankmillError:
        raise
    except Exception as error:  # the package has a class for nearly each fault
        reason = clipped(" ".join(str(error).split()), 300)
        if "equality delete" in reason.lower():
            raise table.unread(_EQUALITY, "rewrite its data files") from error
        raise InputError(f"the {table.kind} {table.place} cannot be read: {reason}") from error
    return TableVersion(
        Table(table.kind, location, table.version_flag),
        f"{snapshot.snapshot_id}{'' if schema_id == snapshot.schema_id else f'@{schema_id}'}",
        schema,
        tuple(sorted(_counted(table, tasks, columns, specs), key=lambda file: file.uri)),
        field_ids={name: field_id for field_id, name in names.items()},
        names=mapped,
        other_names={name: had[field_id] - {name} for field_id, name in names.items()},
    )


def _metadata_file(table: Table) -> str:
    """Return the newest metadata file of a table, which may itself be named by one."""
    if METADATA_FILE.fullmatch(table.place.rpartition("/")[2]):
        return table.place
    folder = f"{table.place}/metadata"
    there = storage.names(folder)
    numbers = {
        name: int(number[1])
        for name in there
        if METADATA_FILE.fullmatch(name) and (number := _NUMBER.fullmatch(name))
    }
    hint = storage.read_bytes(f"{folder}/version-hint.text")
    if hint is not None:
        wanted = hint.decode("utf-8", "replace").strip()
        newest = [name for name in numbers if name.startswith((f"v{wanted}.", f"{wanted}."))]
        newest = newest or [name for name in numbers if name == wanted]
    else:
        newest = [name for name in numbers if numbers[name] == max(numbers.values())]
    if len(newest) != 1:
        what = f"{' and '.join(newest)} are both its newest" if newest else "none is its newest"
        raise InputError(
            f"the {table.kind} {table.place}: of its metadata files {what}; give the one that its "
            f"catalog names, {folder}/….metadata.json"
        )
    return f"{folder}/{newest[0]}"


def _snapshot(table: Table, metadata: Any, version: str | None) -> tuple[Any, int]:
    """Return a snapshot, and the id of the schema that it is read with.

    The current table and a branch have the current schema. A tag and a snapshot have the schema of
    their time, or the one after an `@`, so that a fixed version never changes.
    """
    named, _, schema = (version or "").partition("@")
    ref = metadata.refs.get(version or "main")
    if ref is not None:
        snapshot = metadata.snapshot_by_id(ref.snapshot_id)
        is_branch = ref.snapshot_ref_type.value == "branch"
        schema = str(metadata.current_schema_id) if is_branch else ""
    elif version is None:
        raise InputError(f"the {table.kind} {table.place} has no rows")
    else:
        snapshot = metadata.snapshot_by_id(int(named)) if named.isdecimal() else None
    schema_ids = {str(each.schema_id): each.schema_id for each in metadata.schemas}
    if snapshot is not None:
        then = snapshot.schema_id
        schema = schema or str(metadata.current_schema_id if then is None else then)
    if snapshot is None or schema not in schema_ids:
        known = [*metadata.refs, *(each.snapshot_id for each in metadata.snapshots[-5:])]
        raise InputError(
            f"the {table.kind} {table.place} has no snapshot, branch or tag {version!r} "
            f"({table.version_flag}); it has {', '.join(map(str, known)) or 'none'}"
        )
    return snapshot, schema_ids[schema]


def _counted(
    table: Table, tasks: Iterable[Any], columns: Any, specs: dict[int, Any]
) -> Iterable[Counted]:
    """Yield the files of a snapshot, with the values of partition columns and deleted rows."""
    from producer.lake.iceberg_files import normal_place

    names = {field.name for field in columns.fields}
    positions = _Positions(table)
    for task in tasks:
        file = task.file
        uri = storage.absolute(normal_place(file.file_path))
        deletes = [positions.of(delete) for delete in task.delete_files]
        deleted = [rows_of[uri] for rows_of in deletes if uri in rows_of]
        if file.file_format.name != "PARQUET":
            raise table.unread(f"{file.file_format.name} files")
        given: Partition = {}
        for at, field in enumerate(specs[file.spec_id].fields):
            name = columns.find_column_name(field.source_id)
            # Older files may lack a column that their partition gives unchanged.
            if str(field.transform) == "identity" and name in names:
                kind = columns.find_type(field.source_id)
                if str(kind).startswith(("binary", "fixed", "uuid")):
                    raise table.unread(f"a partition column of bytes ('{name}')")
                value = file.partition[at]
                to_text = field.transform.to_human_string
                given[name] = None if value is None else to_text(kind, value)
        yield Counted(
            uri,
            int(file.file_size_in_bytes),
            int(file.record_count),
            given,
            np.unique(np.concatenate(deleted)) if deleted else None,
        )


class _Positions:
    """The deleted rows that files of position deletes list; each file is read once."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._read: dict[str, dict[str, np.ndarray]] = {}

    def of(self, delete: Any) -> dict[str, np.ndarray]:
        """Return the rows that a file of deletes lists, by the URI of the data file."""
        from producer.lake.iceberg_files import normal_place

        if delete.content.name != "POSITION_DELETES":
            raise self._table.unread(_EQUALITY, "rewrite its data files")
        if delete.file_format.name != "PARQUET":
            raise self._table.unread(f"position deletes in {delete.file_format.name} files")
        uri = storage.absolute(normal_place(delete.file_path))
        if uri not in self._read:
            try:
                stored = read_rows(storage.stat(uri), _POSITIONS.names, 0, _BATCH_ROWS)
                tables = [_POSITIONS.empty_table(), *(table.cast(_POSITIONS) for table in stored)]
            except (InputError, DamagedRowGroup, pa.ArrowInvalid, ValueError, KeyError) as error:
                raise InputError(
                    f"{error}: {uri}, which the table's metadata name for deleted rows"
                ) from error
            rows = pa.concat_tables(tables).group_by("file_path").aggregate([("pos", "list")])
            paths, lists = rows["file_path"].to_pylist(), rows["pos_list"].combine_chunks()
            self._read[uri] = {
                storage.absolute(normal_place(path)): lists[at].values.to_numpy()
                for at, path in enumerate(paths)
            }
        return self._read[uri]
