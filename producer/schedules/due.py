"""Compute when a schedule is due, from a cron line and a time zone, across clock changes.

A line that names hours follows the clock on the wall. A time that the clock shows twice counts
once, the first time. A time that the clock skips is due at the moment of the skip.

A line for every hour follows elapsed time. Each showing of a time counts; a skipped time does not.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from datetime import time as wall_time
from difflib import get_close_matches
from zoneinfo import ZoneInfo, available_timezones

from producer.schedules.cron import Cron
from rankmill.errors import InputError

_DAY = timedelta(days=1)
# The first is enough for most; the last holds a 29 February in any case.
_LOOK_AHEAD_DAYS = (2, 40, 400, 9 * 366)


def zone_named(name: str) -> ZoneInfo:
    """Return a time zone of the IANA database.

    Raises:
        InputError: no zone has that name.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        near = get_close_matches(name, available_timezones(), 1)
        meant = f"; did you mean {near[0]}?" if near else "; give one such as Europe/Berlin"
        raise InputError(f"there is no time zone '{name}'{meant}") from None


def due_between(cron: Cron, zone: ZoneInfo, after: datetime, until: datetime) -> list[datetime]:
    """Return the instants in `after < due <= until`, in UTC and in order."""
    # A day's times may fall on the next day: clocks have skipped a day, or gone back past midnight.
    first = (after.astimezone(zone) - _DAY).date()
    last = (until.astimezone(zone) + _DAY).date()
    return sorted(
        {
            at
            for day in _days(first, last)
            if cron.falls_on(day)
            for time in cron.times
            for at in _instants(datetime.combine(day, time), zone, cron.every_hour)
            if after < at <= until
        }
    )


def next_due(cron: Cron, zone: ZoneInfo, after: datetime) -> datetime | None:
    """Return the first instant after `after`, or None if there is none within nine years."""
    for days in _LOOK_AHEAD_DAYS:
        found = due_between(cron, zone, after, after + days * _DAY)
        if found:
            return found[0]
    return None


def next_time(text: str, zone: ZoneInfo, after: datetime) -> datetime:
    """Return the first instant after `after` at which the clock shows `text`, HH:MM."""
    wanted = wall_time.fromisoformat(text)
    today = after.astimezone(zone).date()
    found = (
        _instants(datetime.combine(day, wanted), zone, every=False)[0]
        for day in _days(today, today + 2 * _DAY)
    )
    return next(at for at in found if at > after)


def _days(first: date, last: date) -> Iterator[date]:
    return (first + n * _DAY for n in range((last - first).days + 1))


def _instants(wall: datetime, zone: ZoneInfo, every: bool) -> list[datetime]:
    """Return when the clock shows a time: once as a rule, else as the module describes."""
    real = []
    for fold in (0, 1):
        at = wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)
        if _shown(at, zone) == wall and at not in real:
            real.append(at)
    if every:
        return real
    return real[:1] or [_moment_of_skip(wall, zone)]


def _moment_of_skip(wall: datetime, zone: ZoneInfo) -> datetime:
    """Return the instant at which the clock skips a time that it never shows."""
    # By the offset after the skip the time lies before it; by the one before the skip, after it.
    begin = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    end = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    seconds = range(int((end - begin).total_seconds()) + 1)
    return begin + timedelta(
        seconds=bisect_left(
            seconds, True, key=lambda s: _shown(begin + timedelta(seconds=s), zone) > wall
        )
    )


def _shown(at: datetime, zone: ZoneInfo) -> datetime:
    return at.astimezone(zone).replace(tzinfo=None)
