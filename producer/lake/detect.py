"""Detect lake tables and unfinished writes by the names in folders.

The files in a table's folder are not its rows: replaced, deleted and uncommitted ones are there
too. Folders above a place are checked as well, and those that links lead to.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum

from rankmill import storage
from rankmill.errors import InputError, StorageRefused
from rankmill.output.output import Output
from rankmill.storage import FileStat, Listing


class Kind(StrEnum):
    """The kinds of tables whose folders are detected."""

    DELTA = "Delta table"
    ICEBERG = "Iceberg table"
    HUDI = "Hudi table"
    PAIMON = "Paimon table"
    DUCKLAKE = "DuckLake table"
    STREAM = "Spark streaming output"


# Names that decide how a folder is read begin so.
_STARTS = ("_", ".", "metadata", "snapshot")
_MARKS = {
    "_delta_log": Kind.DELTA,
    ".hoodie": Kind.HUDI,
    ".hoodie_partition_metadata": Kind.HUDI,
    "_spark_metadata": Kind.STREAM,
}
# An Iceberg table's metadata; the newest file describes the table.
METADATA_FILE = re.compile(r".+\.metadata\.json(\.gz)?", re.IGNORECASE)
# Names in a folder while a writer writes to it.
_STAGING = re.compile(
    r"_temporary|__magic.*|\.spark-staging-.+|_spark_staging.*|\.hive-staging.*|_impala_insert_staging"
)
_STARTED = re.compile(r"_started_(.+)")
_PARTITION = re.compile(r"[^/=]+=[^/]*")
_PAIMON_SNAPSHOT = re.compile(r"snapshot-\d+|LATEST|EARLIEST")
_DUCKLAKE_FILE = re.compile(r"ducklake-[0-9a-f-]{36}.*\.parquet")
_SUCCESS = "_SUCCESS"
_AT_ONCE = 16

_REMEDIES = {
    Kind.HUDI: "Hudi tables are not read; write the table's rows to Parquet or a Delta table "
    'first, as by spark.read.format("hudi").load(…).write.parquet(…)',
    Kind.PAIMON: "Paimon tables are not read; write the table's rows to Parquet or a Delta table "
    "first",
    Kind.DUCKLAKE: "only its catalog says which files count; write the table's rows to Parquet "
    "first, as by COPY … TO",
    Kind.STREAM: "only the log in _spark_metadata says which files were committed; write them to "
    "another folder first, as by spark.read.parquet(…).write.parquet(…)",
}


@dataclass(frozen=True)
class Table:
    """A table that is read through its log.

    Attributes:
        kind: Delta or Iceberg.
        place: its folder, or an Iceberg metadata file.
        version_flag: the flag that names its version, for errors.
    """

    kind: Kind
    place: str
    version_flag: str = "--input-version"

    def unread(self, feature: str, remedy: str = "write its rows to another") -> InputError:
        """Return the error for a feature of the table that is not read."""
        what = f"the {self.kind} {self.place} uses {feature}"
        return InputError(f"{what}, which is not read; {remedy}")


def named_table(listing: Listing) -> Table | None:
    """Return the Delta or Iceberg table that a place itself is, or None.

    Raises:
        InputError: it is a table of another kind.
    """
    if listing.is_file:
        folder, _, name = listing.place.rpartition("/")
        is_metadata = METADATA_FILE.fullmatch(name) and folder.endswith("/metadata")
        return Table(Kind.ICEBERG, listing.place) if is_metadata else None
    if not listing.is_folder:
        return None
    kind = _Folders(listing).kind(listing.place)
    if kind is None:
        return None
    if kind in _REMEDIES:
        raise InputError(f"{listing.place} is a {kind}; {_REMEDIES[kind]}")
    return Table(kind, listing.place)


def check_plain(listing: Listing, files: Sequence[FileStat]) -> None:
    """Check that files may be read as plain files.

    Args:
        listing: the place.
        files: its files to read.

    Raises:
        InputError: a file belongs to a table, or to a write that has not ended.
    """
    for file in files:
        folder, _, name = file.uri.rpartition("/")
        if _DUCKLAKE_FILE.fullmatch(name):
            raise _part_of(listing, folder, Kind.DUCKLAKE, is_above=listing.is_file)
    folders = _Folders(listing)
    places = list(dict.fromkeys(_folder(file.uri) for file in files))
    inner = set(_at_and_above(places, listing.top))
    # Through links a file may be in a table, though no folder in its path is.
    targets = {storage.resolved(folder) for folder in places} - set(places)
    links = (storage.link_target(file.uri) for file in files)
    targets |= {_folder(target) for target in links if target}
    outer = set(_at_and_above([listing.top, *targets])) - inner
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        checked = sorted({*inner, listing.top}) + sorted(outer - {listing.top}, reverse=True)
        kinds = pool.map(folders.kind, checked)
        for folder, kind in zip(checked, kinds, strict=True):
            if kind is not None:
                raise _part_of(listing, folder, kind, is_above=folder in outer)
        written = {*inner, listing.top}
        for place in (*places, *targets):
            written.add(place)
            while _PARTITION.fullmatch(place.rpartition("/")[2]):
                place = _folder(place)
                written.add(place)
        for reason in pool.map(folders.unfinished, sorted(written & {*checked})):
            if reason is not None:
                raise InputError(reason)


def _part_of(listing: Listing, folder: str, kind: Kind, *, is_above: bool) -> InputError:
    is_within = is_above or folder == listing.top
    lead = f"{listing.place} is part of the {kind} {folder}"
    if not is_within:
        lead = f"{listing.place} holds the {kind} {folder}"
    if kind in _REMEDIES:
        return InputError(f"{lead}; {_REMEDIES[kind]}")
    return InputError(f"{lead}, whose log says which files count; give {folder} alone")


class _Folders:
    """The names in folders, from a listing that has seen them all, else from the store."""

    def __init__(self, listing: Listing) -> None:
        self._top, self._is_whole = listing.top, listing.is_folder
        self._listed: dict[str, set[str]] | None = None
        self._asked: dict[tuple[str, Sequence[str]], set[str]] = {}
        # A listing on disk has no empty folders, and leaves out those that a glob does not match.
        if listing.is_file or storage.is_local(listing.place):
            return
        self._listed = defaultdict(set)
        for file in (*listing.named, *listing.inside, *listing.hidden):
            path = file.uri
            while path != self._top:
                path, _, name = path.rpartition("/")
                if name in self._listed[path]:
                    break
                self._listed[path].add(name)

    def kind(self, folder: str) -> Kind | None:
        """Return the kind of table that a folder holds, or None.

        A Delta table may have Iceberg metadata as well, as a copy.
        """
        names = self._names(folder)
        for mark, kind in _MARKS.items():
            if mark in names:
                return kind
        for name, file, kind in (
            ("metadata", METADATA_FILE, Kind.ICEBERG),
            ("snapshot", _PAIMON_SNAPSHOT, Kind.PAIMON),
        ):
            if name in names and any(map(file.fullmatch, self._names(f"{folder}/{name}", ("",)))):
                return kind
        return None

    def _has_job(self, folder: str) -> bool:
        """Return whether a folder is the output of a job."""
        above = _folder(folder)
        near = [folder] if above.endswith("/") else [folder, above]  # nothing is above a bucket
        if not any(storage.CONTROL_FOLDER in self._names(name) for name in near):
            return False
        try:
            return Output(folder).read_job() is not None
        except StorageRefused:  # the folder above may not be read
            return False

    def _names(self, folder: str, starts: Sequence[str] = _STARTS) -> set[str]:
        """Return at least the names that begin so; each folder is listed once."""
        is_inside = folder.startswith(f"{self._top}/") or (self._is_whole and folder == self._top)
        if self._listed is not None and is_inside:
            return self._listed.get(folder, set())
        if (folder, starts) not in self._asked:
            try:
                if storage.is_local(folder):
                    names = set(storage.names(folder or "/"))
                else:
                    names = {name for start in starts for name in storage.names(folder, start)}
            except StorageRefused:  # a folder above the input may not be listed
                names = set()
            self._asked[folder, starts] = names
        return self._asked[folder, starts]

    def unfinished(self, folder: str) -> str | None:
        """Return why a folder does not hold exactly what was written to it, or None."""
        names = self._names(folder)
        if _SUCCESS not in names and self._has_job(folder):
            return (
                f"{folder} is the output of a job that has not succeeded; wait for it or resume "
                "it, and give its output then"
            )
        remains = sorted(name for name in names if _STAGING.fullmatch(name))
        if remains and _SUCCESS not in names:
            return (
                f"{folder} holds {remains[0]} and no {_SUCCESS}: its writer has not ended or has "
                f"failed; write it again, or remove {remains[0]} if you know that all is there"
            )
        for name in sorted(names):
            begun = _STARTED.fullmatch(name)
            if begun and f"_committed_{begun[1]}" not in names:
                return (
                    f"{folder} holds {name} and no _committed_{begun[1]}: its writer has not "
                    f"ended or has failed; write it again, or remove {name} and its files"
                )
            if name.startswith("_committed_"):
                removed = sorted(_removed(f"{folder}/{name}") & set(storage.names(folder)))
                if removed:
                    return (
                        f"{folder}: {name} says that {removed[0]} was removed, but it is still "
                        "there; remove it, or write the folder again"
                    )
        return None


def _removed(uri: str) -> set[str]:
    """Return the files that a Databricks commit has replaced; they may stay for some days."""
    content = storage.read_bytes(uri)
    if not content:
        return set()
    try:
        return set(json.loads(content).get("removed", ()))
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{uri}: damaged: not the JSON of a commit") from error


def _folder(uri: str) -> str:
    return uri.rpartition("/")[0]


def _at_and_above(folders: Iterable[str], top: str = "") -> Iterator[str]:
    """Yield the folders and those above them, up to `top`, the root or the bucket."""
    seen: set[str] = set()
    for folder in folders:
        while folder not in seen and folder.startswith(top) and not folder.endswith("/"):
            seen.add(folder)
            yield folder
            if folder in (top, ""):
                break
            folder = _folder(folder)
