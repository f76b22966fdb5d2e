"""Recognize the columns with texts, lists and titles, by one rule for every layout."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from rankmill.errors import InputError

NO_TITLE = "none"
_USUAL = "title"


def find_title(
    wanted: str | None, fields: Iterable[pa.Field], taken: Iterable[str | None], where: str
) -> str | None:
    """Return the name of the field that --title-col means: the one given, or `title` if present.

    Args:
        wanted: the value of --title-col.
        fields: the fields that describe a document.
        taken: the names of fields with another meaning.
        where: the place of the fields, for errors.

    Raises:
        InputError: the field is missing, has another meaning, or is not text.
    """
    types = {field.name: field.type for field in fields}
    taken = set(taken)
    if wanted in (NO_TITLE, "") or (wanted is None and (_USUAL not in types or _USUAL in taken)):
        return None
    name = wanted or _USUAL
    if name not in types:
        there = ", ".join(types) or "none"
        raise InputError(f"{where}: no '{name}' for --title-col; there are: {there}")
    if name in taken:
        raise InputError(f"{where}: '{name}' is a text or an id already; give another --title-col")
    if not is_text(types[name]):
        raise InputError(
            f"{where}: '{name}' is {types[name]}, not text; give another --title-col, or none"
        )
    return name


def is_text(kind: pa.DataType) -> bool:
    """Return whether a column of this type holds strings, or only nulls."""
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_null,
    )
    return any(test(value) for test in tests)


def is_list(kind: pa.DataType) -> bool:
    """Return whether a column of this type holds lists."""
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)
