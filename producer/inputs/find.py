"""Find the files that an input means, or say why it means none."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from producer.formats.forms import Form, form_of
from producer.inputs.folders import data_files
from producer.lake.delta import open_delta
from producer.lake.iceberg import located, open_iceberg
from producer.lake.marks import Kind, Table, check_plain, named_table
from producer.lake.table import TableVersion
from rankmill import storage
from rankmill.errors import InputError
from rankmill.storage import FileStat


@dataclass(frozen=True)
class Found:
    """
    Attributes:
        below: of each file's path what the place that named it leaves open, from a `/` on.
        table: the table that the files are of, and which has said so.
    """

    form: Form
    files: tuple[FileStat, ...]
    below: tuple[str, ...] = ()
    table: TableVersion | None = None


def find(uris: str, version: str | None = None, flag: str = "INPUT") -> Found:
    """The files that an input names, which all have one form.

    Args:
        version: of the table that the input is, or else its newest.
        flag: what named the input.

    Raises:
        InputError: nothing is there, or a file twice, or files of several forms, or of none that
            is known; or files that are not an input's rows as they lie there; or a version of what
            has none.
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
            opened = open_table(replace(table, version_flag=version_flag), version)
            return Found(Form.PARQUET, opened.files(), table=opened)
        found = data_files(listing)
        check_plain(listing, found)
        files += found
        below += storage.paths_below(place, found)
    if version is not None:
        raise InputError(
            f"{version_flag} {version}: {uris} has no versions; only Delta and Iceberg tables have"
        )
    [(uri, n_times)] = Counter(file.uri for file in files).most_common(1)
    if n_times > 1:
        raise InputError(f"{uri} is named twice by {uris}; its rows would be read twice")
    forms: dict[Form, str] = {}
    for file in files:
        forms.setdefault(form_of(file), file.uri)
    if len(forms) > 1:
        (one, here), (other, there) = list(forms.items())[:2]
        raise InputError(f"{here} is {one}, {there} is {other}; give files of one form")
    return Found(next(iter(forms)), tuple(files), tuple(below))


def open_table(table: Table, version: str | None) -> TableVersion:
    """
    Raises:
        InputError: as `open_delta` and `open_iceberg`.
    """
    return (open_delta if table.kind is Kind.DELTA else open_iceberg)(table, version)
