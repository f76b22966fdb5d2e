"""Paths that say when: {date}, {previous_date}, {due:%Y/%m/%d}, {latest:s3://bucket/prefix/dt=*}.

All but the last are of the due time on the clock of the schedule's zone; {latest:…} is the newest
partition at the time of the run, by name, numbers in it as numbers.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from rankmill import storage
from rankmill.errors import InputError
from rankmill.storage.glob import is_glob, matches

_TEMPLATE = re.compile(r"\{([^{}:]*)(?::([^{}]*))?\}")
_LATEST = re.compile(r"\{latest:([^{}]+)\}")
_FORMAT = re.compile(r"(?:%[YymdHMjGVu]|[^%])+")
_NAMES = "{date}, {previous_date}, {due:%Y/%m/%d}, {latest:PATTERN}"


def check(text: str, *, latest: bool = True) -> None:
    """Refuse what `rendered` could not fill in.

    Raises:
        InputError: naming what is wrong.
    """
    if re.search(r"[{}]", _TEMPLATE.sub("", text)):
        raise InputError(f"{text}: a brace without its other half")
    for path in text.split(","):
        for found in _TEMPLATE.finditer(path):
            name, argument = found.groups()
            is_latest = name == "latest" and latest and bool(argument) and is_glob(argument)
            if is_latest and found.start() > 0:
                raise InputError(f"{text}: {found[0]} holds a whole path, so it comes first")
            if is_latest and "**" in argument:
                raise InputError(f"{text}: ** is for files; name the levels of {found[0]}")
            is_plain = name in ("date", "previous_date") and argument is None
            is_due = name == "due" and _FORMAT.fullmatch(argument or "") is not None
            if not (is_latest or is_plain or is_due):
                known = _NAMES if latest else _NAMES.rpartition(",")[0]
                raise InputError(f"{text}: {found[0]} means nothing here; there are {known}")


def absolute(text: str) -> str:
    """The same paths, named so that a worker finds them; templates stay."""
    return ",".join(map(_absolute, text.split(",")))


def _absolute(path: str) -> str:
    found = _LATEST.match(path)
    if path.lower().startswith("iceberg://"):
        return path  # its catalog says at each time where it is
    if found is None:
        return storage.absolute(path)
    return "{latest:" + storage.absolute(found[1]) + "}" + path[found.end() :]


def tells_time(text: str) -> bool:
    """Whether a path is another one at each due time, {latest:…} aside."""
    return _TEMPLATE.search(_LATEST.sub("", text)) is not None


def fixed_folder(text: str) -> str:
    """The deepest folder that all of a template's places lie in."""
    found = _TEMPLATE.search(text)
    return text.rstrip("/") if found is None else text[: found.start()].rpartition("/")[0]


def rendered(text: str, due: datetime) -> str:
    """The path at a due time, which is in the schedule's zone.

    Raises:
        InputError: {latest:…} matches nothing.
    """

    def value(found: re.Match[str]) -> str:
        name, argument = found.groups()
        if name == "latest":
            return _newest(argument)
        if name == "due":
            return due.strftime(argument)
        day = due.date() - timedelta(days=1) if name == "previous_date" else due.date()
        return day.isoformat()

    return _TEMPLATE.sub(value, text)


def _newest(pattern: str) -> str:
    found = _newest_under(*_split(pattern))
    if found is None:
        raise InputError(f"{{latest:{pattern}}}: nothing matches that has files in it")
    return found


def _split(pattern: str) -> tuple[str, list[str]]:
    """The fixed folder before the first name with a wildcard, and the names from there on."""
    names = pattern.rstrip("/").split("/")
    n_fixed = next(n for n, name in enumerate(names) if is_glob(name))
    return "/".join(names[:n_fixed]) or "/", names[n_fixed:]


def _newest_under(folder: str, names: list[str]) -> str | None:
    if not names:
        return folder if storage.exists(folder) or _visible(folder) else None
    found = [name for name in _visible(folder) if matches(name, names[0])]
    for name in sorted(found, key=_natural, reverse=True):
        deeper = _newest_under(storage.child(folder, name), names[1:])
        if deeper is not None:
            return deeper
    return None


def _visible(folder: str) -> list[str]:
    return [name for name in storage.names(folder) if not name.startswith(("_", "."))]


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts `dt=9` before `dt=10`."""
    pieces = enumerate(re.split(r"(\d+)", name))  # every second one is a number
    return [(int(piece), "") if n % 2 else (0, piece) for n, piece in pieces]
