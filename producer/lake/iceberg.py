"""Read an Iceberg table's metadata: which files count in a snapshot, and how they hold columns."""

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
from rankmill.contract.job import Partition
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
    """The metadata file of `iceberg://CATALOG/NAMESPACE.TABLE` as it is now; other places as given.

    Raises:
        InputError: the package is missing, or pyiceberg's settings have no such catalog, or that
            no such table.
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
        found = load_catalog(name[1]).load_table(name[2]).metadata_location
    except Exception as error:  # nor are they quoted, where a catalog's password may be
        raise InputError(
            f"{place}: pyiceberg's catalog '{name[1]}' gives no table '{name[2]}' "
            f"({type(error).__name__}); PYICEBERG_CATALOG__{name[1].upper()}__URI or "
            "~/.pyiceberg.yaml says where it is"
        ) from error
    from producer.lake.iceberg_files import normal_place

    return normal_place(found)


def open_iceberg(table: Table, version: str | None) -> TableVersion:
    """An Iceberg table in a snapshot, given by id, branch or tag; its current one if none is given.

    Raises:
        InputError: the package is missing, there is no such snapshot, metadata are damaged or not
            the newest for sure, or the table uses what would be read wrong.
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
    from producer.lake.iceberg_files import StoredFiles  # which needs the package

    location = _metadata_file(table)
    io = StoredFiles()
    try:
        metadata = FromInputFile.table_metadata(io.new_input(location))
        # Not by its from_metadata, which lets the table's properties name a class to load.
        opened = StaticTable(("static", location), metadata, location, io, NoopCatalog("static"))
        if metadata.format_version > _MAX_FORMAT:
            raise _unread(table, f"format version {metadata.format_version}")
        snapshot, schema_id = _snapshot(table, metadata, version)
        columns = next(each for each in metadata.schemas if each.schema_id == schema_id)
        tasks = list(opened.scan(snapshot_id=snapshot.snapshot_id).plan_files())
        schema = columns.as_arrow()
        specs = metadata.specs()
        mapped = _mapped_names(metadata, columns)
    except RankmillError:
        raise
    except Exception as error:  # the package has a class for nearly each
        reason = clipped(" ".join(str(error).split()), 300)
        if "equality delete" in reason.lower():
            raise _unread(table, _EQUALITY, "rewrite its data files") from error
        raise InputError(f"the {table.kind} {table.place} cannot be read: {reason}") from error
    return TableVersion(
        Table(table.kind, location, table.version_flag),
        f"{snapshot.snapshot_id}{'' if schema_id == snapshot.schema_id else f'@{schema_id}'}",
        schema,
        tuple(sorted(_counted(table, tasks, columns, specs), key=lambda file: file.uri)),
        {field.name: field.field_id for field in columns.fields},
        mapped,
        _other_names(metadata, columns),
    )


def _metadata_file(table: Table) -> str:
    """The newest metadata file of a table that is named by its folder."""
    if METADATA_FILE.fullmatch(table.place.rpartition("/")[2]):
        return table.place
    folder = f"{table.place}/metadata"
    there = storage.names(folder)
    numbers = {
        name: int(found[1])
        for name in there
        if METADATA_FILE.fullmatch(name) and (found := _NUMBER.fullmatch(name))
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
    """The snapshot, and the id of the columns that it is read with.

    The table as it is, and a branch, have the columns of now; a tag and a snapshot those of then,
    or those after an `@`, so that a fixed version stays what it was.
    """
    named, _, schema = (version or "").partition("@")
    ref = metadata.refs.get(version or "main")
    if ref is not None:
        found = metadata.snapshot_by_id(ref.snapshot_id)
        is_branch = ref.snapshot_ref_type.value == "branch"
        schema = str(metadata.current_schema_id) if is_branch else ""
    elif version is None:
        raise InputError(f"the {table.kind} {table.place} has no rows")
    else:
        found = metadata.snapshot_by_id(int(named)) if named.isdecimal() else None
    schema_ids = {str(each.schema_id): each.schema_id for each in metadata.schemas}
    if found is not None:
        then = metadata.current_schema_id if found.schema_id is None else found.schema_id
        schema = schema or str(then)
    if found is None or schema not in schema_ids:
        known = [*metadata.refs, *(each.snapshot_id for each in metadata.snapshots[-5:])]
        raise InputError(
            f"the {table.kind} {table.place} has no snapshot, branch or tag {version!r} "
            f"({table.version_flag}); it has {', '.join(map(str, known)) or 'none'}"
        )
    return found, schema_ids[schema]


def _mapped_names(metadata: Any, columns: Any) -> dict[str, list[str]] | None:
    """The names by which files without ids have each column; None where the table has none."""
    mapping = metadata.name_mapping()
    if mapping is None:
        return None
    by_id = {each.field_id: list(each.names) for each in mapping}
    return {field.name: by_id.get(field.field_id, []) for field in columns.fields}


def _other_names(metadata: Any, columns: Any) -> dict[str, set[str]]:
    """The other names that each column has had."""
    had: dict[int, set[str]] = defaultdict(set)
    for schema in metadata.schemas:
        for field in schema.fields:
            had[field.field_id].add(field.name)
    return {field.name: had[field.field_id] - {field.name} for field in columns.fields}


def _counted(
    table: Table, tasks: Iterable[Any], columns: Any, specs: dict[int, Any]
) -> Iterable[Counted]:
    from producer.lake.iceberg_files import normal_place

    positions = _Positions(table)
    for task in tasks:
        file = task.file
        uri = storage.absolute(normal_place(file.file_path))
        deletes = [positions.of(delete) for delete in task.delete_files]
        found = [each[uri] for each in deletes if uri in each]
        if file.file_format.name != "PARQUET":
            raise _unread(table, f"{file.file_format.name} files")
        yield Counted(
            uri,
            int(file.file_size_in_bytes),
            int(file.record_count),
            _identities(table, columns, specs[file.spec_id], file.partition),
            np.unique(np.concatenate(found)) if found else None,
        )


class _Positions:
    """What files of position deletes hold, each read once."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._read: dict[str, dict[str, np.ndarray]] = {}

    def of(self, delete: Any) -> dict[str, np.ndarray]:
        """Of each data file by its URI, the rows that a file deletes."""
        from producer.lake.iceberg_files import normal_place

        if delete.content.name != "POSITION_DELETES":
            raise _unread(self._table, _EQUALITY, "rewrite its data files")
        if delete.file_format.name != "PARQUET":
            raise _unread(self._table, f"position deletes in {delete.file_format.name} files")
        uri = storage.absolute(normal_place(delete.file_path))
        if uri not in self._read:
            rows = _positions_in(uri).group_by("file_path").aggregate([("pos", "list")])
            paths, lists = rows["file_path"].to_pylist(), rows["pos_list"].combine_chunks()
            self._read[uri] = {
                storage.absolute(normal_place(path)): lists[at].values.to_numpy()
                for at, path in enumerate(paths)
            }
        return self._read[uri]


def _positions_in(uri: str) -> pa.Table:
    """
    Raises:
        InputError: the file is gone, or is none of position deletes.
    """
    try:
        tables = read_rows(storage.stat(uri), _POSITIONS.names, 0, _BATCH_ROWS)
        found = pa.concat_tables(
            [_POSITIONS.empty_table(), *(each.cast(_POSITIONS) for each in tables)]
        )
    except (InputError, DamagedRowGroup, pa.ArrowInvalid, ValueError, KeyError) as error:
        raise InputError(
            f"{error}: {uri}, which the table's metadata name for deleted rows"
        ) from error
    return found


def _identities(table: Table, columns: Any, spec: Any, values: Any) -> Partition:
    """What a file's partition says of columns as they are, which older files may lack."""
    found: Partition = {}
    for at, field in enumerate(spec.fields):
        name = columns.find_column_name(field.source_id)
        if str(field.transform) != "identity" or name not in {each.name for each in columns.fields}:
            continue
        kind = columns.find_type(field.source_id)
        if str(kind).startswith(("binary", "fixed", "uuid")):
            raise _unread(table, f"a partition column of bytes ('{name}')")
        value = values[at]
        found[name] = None if value is None else field.transform.to_human_string(kind, value)
    return found


def _unread(table: Table, feature: str, remedy: str = "write its rows to another") -> InputError:
    return InputError(f"the {table.kind} {table.place} uses {feature}, which is not read; {remedy}")
