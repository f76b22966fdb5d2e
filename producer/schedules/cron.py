"""Parse a cron line as crontab(5) defines it; Celery's parser expands the fields."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, time

from celery.schedules import ParseException, crontab_parser

from rankmill.errors import InputError

_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_WEEKDAYS = "sun mon tue wed thu fri sat".split()


@dataclass(frozen=True)
class _Field:
    name: str
    count: int
    first: int = 0
    names: tuple[str, ...] = ()


_FIELDS = (
    _Field("minute", 60),
    _Field("hour", 24),
    _Field("day of month", 31, 1),
    _Field("month", 12, 1, tuple(_MONTHS)),
    _Field("day of week", 8, 0, tuple(_WEEKDAYS)),  # Sunday is 0 and 7
)
_NUMBERS = re.compile(r"(?:\*|(\d+)-(\d+))/\d+|\d+(?:-\d+)?|\*")
_NAMES = re.compile(r"([a-z]+)(?:-([a-z]+))?")


@dataclass(frozen=True)
class Cron:
    """A cron line: times and days on a wall clock, in any time zone.

    Attributes:
        every_hour: the hour is `*`; the line then follows elapsed time, not the clock's hands.
        either_day: day of month and day of week are both restricted, and one match is enough.
    """

    line: str
    times: tuple[time, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    every_hour: bool
    either_day: bool

    @classmethod
    def parse(cls, line: str) -> Cron:
        """Parse a line such as `15 2 * * mon-fri`.

        Raises:
            InputError: a field is wrong; the message names it.
        """
        texts = line.lower().split()
        if len(texts) != len(_FIELDS):
            raise InputError(
                f"cron '{line}': {len(texts)} fields; it takes minute, hour, day of month, month "
                "and day of week, as in '15 2 * * *'"
            )
        minutes, hours, days, months, weekdays = (
            _expanded(field, text, line) for field, text in zip(_FIELDS, texts, strict=True)
        )
        return cls(
            line=line,
            times=tuple(time(hour, minute) for hour in sorted(hours) for minute in sorted(minutes)),
            days=frozenset(days),
            months=frozenset(months),
            weekdays=frozenset(day % 7 for day in weekdays),
            every_hour=texts[1] == "*",
            either_day=not texts[2].startswith("*") and not texts[4].startswith("*"),
        )

    def falls_on(self, day: date) -> bool:
        """Return whether the line is due on a day."""
        if day.month not in self.months:
            return False
        by_day, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return by_day or by_weekday if self.either_day else by_day and by_weekday


def _expanded(field: _Field, text: str, line: str) -> set[int]:
    # Celery's parser ignores what follows a part, and takes names in every field.
    wrong = [part for part in text.split(",") if not _is_well_formed(field, part)]
    if not wrong:
        try:
            numbers: set[int] = crontab_parser(field.count, field.first).parse(text)
            return numbers
        except (ValueError, ParseException):
            wrong = [text]
    last = field.first + field.count - 1
    raise InputError(
        f"cron '{line}': '{wrong[0]}' is not a {field.name}; it takes {field.first} to {last}, "
        "as in 5, 1-5, */15 or 1,15"
    )


def _is_well_formed(field: _Field, part: str) -> bool:
    names = _NAMES.fullmatch(part)
    if names:
        return all(name in field.names for name in names.groups() if name is not None)
    numbers = _NUMBERS.fullmatch(part)
    if numbers is None:
        return False
    first, last = numbers.groups()  # of a range with a step, which must not run backwards
    return first is None or int(first) <= int(last)
