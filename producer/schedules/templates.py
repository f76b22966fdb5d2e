"""Fill in path templates: {date}, {previous_date}, {due:%Y/%m/%d}, {latest:s3://bucket/dt=*}.

The first three take the due time in the schedule's zone. {latest:…} is the newest partition when
the run starts: the last one by name, with numbers in names compared as numbers.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path

from rankmill import storage
from rankmill.errors import InputError
from rankmill.storage.glob import is_glob, matches

_TEMPLATE = re.compile(r"\{([^{}:]*)(?::([^{}]*))?\}")
_LATEST = re.compile(r"\{latest:([^{}]+)\}")
_FORMAT = re.compile(r"(?:%[YymdHMjGVu]|[^%])+")
_NAMES = "{date}, {previous_date}, {due:%Y/%m/%d}, {latest:PATTERN}"


def check(text: str, *, latest: bool = True) -> None:
    """Refuse a template that `rendered` cannot fill in.

    Args:
        text: the path.
        latest: whether {latest:…} is allowed.

    Raises:
        InputError: the template is wrong; the message names the part.
    """
    if re.search(r"[{}]", _TEMPLATE.sub("", text)):
        raise InputError(f"{text}: unmatched brace")
    for path in text.split(","):
        for found in _TEMPLATE.finditer(path):
            name, argument = found.groups()
            is_latest = name == "latest" and latest and bool(argument) and is_glob(argument)
            if is_latest and found.start() > 0:
                raise InputError(f"{text}: {found[0]} holds a whole path; put it first")
            if is_latest and "**" in argument:
                raise InputError(f"{text}: ** is not allowed in {found[0]}; write each level")
            is_plain = name in ("date", "previous_date") and argument is None
            is_due = name == "due" and _FORMAT.fullmatch(argument or "") is not None
            if not (is_latest or is_plain or is_due):
                known = _NAMES if latest else _NAMES.rpartition(",")[0]
                raise InputError(f"{text}: unknown template {found[0]}; the known ones are {known}")


def absolute(text: str, folder: Path = Path()) -> str:
    """Return the paths made absolute, so that a worker finds them; templates stay.

    A relative path is below `folder`.
    """
    return ",".join(_absolute(path, folder) for path in text.split(","))


def _absolute(path: str, folder: Path) -> str:
    found = _LATEST.match(path)
    if path.lower().startswith("iceberg://"):
        return path  # its catalog resolves it at each run
    if found is None:
        return storage.absolute(storage.from_folder(folder, path))
    glob = storage.absolute(storage.from_folder(folder, found[1]))
    return "{latest:" + glob + "}" + path[found.end() :]


def depends_on_time(text: str) -> bool:
    """Return whether a path changes with the due time; {latest:…} does not count."""
    return _TEMPLATE.search(_LATEST.sub("", text)) is not None


def fixed_folder(text: str) -> str:
    """Return the deepest folder that contains all paths of a template."""
    found = _TEMPLATE.search(text)
    return text.rstrip("/") if found is None else text[: found.start()].rpartition("/")[0]


def rendered(text: str, due: datetime) -> str:
    """Return the path for a due time, which is in the schedule's zone.

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
        raise InputError(f"{{latest:{pattern}}}: no match that contains files")
    return found


def _split(pattern: str) -> tuple[str, list[str]]:
    """Split a pattern into the folder before the first wildcard and the names after it."""
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
    """Return a sort key that puts `dt=9` before `dt=10`."""
    pieces = enumerate(re.split(r"(\d+)", name))  # every second one is a number
    return [(int(piece), "") if n % 2 else (0, piece) for n, piece in pieces]
