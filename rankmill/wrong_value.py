"""Name a wrong value in one line: the name, the value, what is allowed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from difflib import get_close_matches

from pydantic import ValidationError

from rankmill.errors import InputError
from rankmill.shown import clipped

_SHOWN_CHARS = 80
# The messages of these name the value already, or there is none.
_WITHOUT_VALUE = ("setting", "missing", "extra_forbidden", "json_invalid")


def wrong_value(
    error: ValidationError,
    *,
    named: Callable[[str], str] = str,
    known: Iterable[str] = (),
    is_secret: Callable[[str], bool] = lambda field: False,
) -> str:
    """Return a line about the first wrong field.

    Args:
        error: what pydantic raised.
        named: turns a field's name into the key, flag or variable that a user types.
        known: the names of fields, to suggest one for an unknown name.
        is_secret: returns whether a field's value must not be shown. URLs are never shown.
    """
    first = error.errors(include_url=False)[0]
    field = ".".join(map(str, first["loc"]))
    name = named(field) if field else ""
    kind, value = first["type"], first["input"]
    reason = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    reason = reason.partition(", unable to parse")[0]
    if kind == "missing":
        reason = "is missing"
    elif kind == "string_too_short" and value == "":
        reason = "is empty"
    elif kind == "extra_forbidden":
        near = get_close_matches(name, map(named, known), 1) if len(first["loc"]) == 1 else []
        meant = f"; did you mean {near[0]}?" if near else ""
        return f"unknown option {name}{meant}"
    elif kind == "model_type" or kind == "json_invalid":
        reason = f"is not an object with fields: {reason}"
    if reason.startswith("--"):  # our own checks name the flag and the value
        return reason
    is_shown = field and kind not in _WITHOUT_VALUE and not is_secret(field)
    shown = repr(value) if is_shown else ""
    if "://" in shown or (field.endswith("_uri") and isinstance(value, str)):
        shown = ""  # it may hold a password
    return " ".join(filter(None, (name, clipped(shown, _SHOWN_CHARS), reason)))


def check_positive(name: str, value: float | None) -> None:
    """Check that a number is positive and finite, or not given.

    Raises:
        InputError: it is neither; `name` is what the user typed.
    """
    if value is not None and not 0 < value < math.inf:
        raise InputError(f"{name} {value:g}: give a positive number")
