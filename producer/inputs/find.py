"""Find the files that an input means, or say why it means none."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from producer.inputs.folders import data_files
from producer.inputs.marks import check_plain, named_table
from producer.prepare.forms import Form, form_of
from rankmill import storage
from rankmill.errors import InputError
from rankmill.storage import FileStat


@dataclass(frozen=True)
class Found:
    """
    Attributes:
        below: of each file's path what the place that named it leaves open, from a `/` on.
    """

    form: Form
    files: tuple[FileStat, ...]
    below: tuple[str, ...]


def find(uris: str) -> Found:
    """The files that an input names, which all have one form.

    Raises:
        InputError: nothing is there, or a file twice, or files of several forms, or of none that
            is known; or files that are not an input's rows as they lie there.
    """
    files: list[FileStat] = []
    below: list[str] = []
    for place in storage.places(uris):
        listing = storage.list_place(place)
        table = named_table(listing)
        if table is not None:
            raise InputError(
                f"{table.place} is a {table.kind}, whose folder also holds replaced and deleted "
                "rows; write its rows to a folder of Parquet first"
            )
        found = data_files(listing)
        check_plain(listing, found)
        files += found
        below += storage.paths_below(place, found)
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
