"""Find the files that an input names, or say why there are none."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from producer.formats.file_format import FileFormat, detect_format
from producer.inputs.folders import data_files
from producer.lake.delta import open_delta
from producer.lake.detect import Kind, check_plain, named_table
from producer.lake.iceberg import located, open_iceberg
from producer.lake.table_version import TableVersion
from rankmill import storage
from rankmill.errors import InputError
from rankmill.storage import FileStat


@dataclass(frozen=True)
class FoundInput:
    """The files of an input.

    Attributes:
        file_format: the format of all files.
        files: the files, in order.
        below: for each file, the part of its path below the place that named it, from a `/` on.
        table: the lake table that lists the files, if the input is one.
    """

    file_format: FileFormat
    files: tuple[FileStat, ...]
    below: tuple[str, ...] = ()
    table: TableVersion | None = None


def find(uris: str, version: str | None = None, flag: str = "INPUT") -> FoundInput:
    """Return the files that an input names, which all have one format.

    Args:
        uris: the input as a user names it, with commas between places.
        version: the version of the input's table; None for the newest.
        flag: the flag or argument that names the input.

    Raises:
        InputError: nothing is there, a file is there twice, or the formats differ or are unknown;
            the files belong to a table or an unfinished write; or the input has no versions.
    """
    version_flag = "--input-version" if flag == "INPUT" else f"{flag}-version"
    files: list[FileStat] = []
    below: list[str] = []
    places = storage.places(uris)
    for place in map(located, places):
        listing = storage.list_place(place)
        table = named_table(listing)
        if table is not None:
            if len(places) > 1:
                raise InputError(f"{place} is a table ({table.kind}); give it alone")
            open_table = open_delta if table.kind is Kind.DELTA else open_iceberg
            opened = open_table(replace(table, version_flag=version_flag), version)
            return FoundInput(FileFormat.PARQUET, opened.files(), table=opened)
        inside = data_files(listing)
        check_plain(listing, inside)
        files += inside
        below += storage.paths_below(place, inside)
    if version is not None:
        raise InputError(
            f"{version_flag} {version}: {uris} has no versions; only Delta and Iceberg tables have"
        )
    [(uri, n_times)] = Counter(file.uri for file in files).most_common(1)
    if n_times > 1:
        raise InputError(f"{uri} is named twice by {uris}; its rows would be read twice")
    formats: dict[FileFormat, str] = {}
    for file in files:
        formats.setdefault(detect_format(file), file.uri)
    if len(formats) > 1:
        (one, here), (other, there) = list(formats.items())[:2]
        raise InputError(f"{here} is {one}, {there} is {other}; give files of one format")
    return FoundInput(next(iter(formats)), tuple(files), tuple(below))
