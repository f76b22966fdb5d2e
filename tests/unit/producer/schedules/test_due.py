"""Due times of schedules: cron lines, time zones, and the two nights a year with a clock change."""

from __future__ import annotations

import itertools
import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.schedules.cron import Cron
from producer.schedules.due import due_between, next_due, next_time, zone_named
from rankmill.errors import InputError

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"]
ZONES += ["America/St_Johns", "Africa/Casablanca", "Asia/Kathmandu"]


def shown(line: str, zone: str, first: str, last: str) -> list[str]:
    """Return the due times in a span of days as the zone's clock shows them, with its offset."""
    info = ZoneInfo(zone)
    after = datetime.fromisoformat(first).replace(tzinfo=info) - timedelta(seconds=1)
    until = datetime.fromisoformat(last).replace(tzinfo=info)
    found = due_between(Cron.parse(line), info, after, until)
    return [f"{at.astimezone(info):%m-%d %H:%M %z}" for at in found]


def test_a_time_that_is_jumped_over_is_due_at_the_jump() -> None:
    assert shown("30 2 * * *", "Europe/Berlin", "2026-03-28", "2026-03-31") == [
        "03-28 02:30 +0100",
        "03-29 03:00 +0200",
        "03-30 02:30 +0200",
    ]


def test_a_time_that_comes_twice_is_due_the_first_time() -> None:
    assert shown("30 2 * * *", "Europe/Berlin", "2026-10-24", "2026-10-27") == [
        "10-24 02:30 +0200",
        "10-25 02:30 +0200",
        "10-26 02:30 +0100",
    ]


def test_two_times_that_are_jumped_over_are_one() -> None:
    assert shown("0,15,30 2,3 * * *", "Europe/Berlin", "2026-03-29", "2026-03-30") == [
        "03-29 03:00 +0200",
        "03-29 03:15 +0200",
        "03-29 03:30 +0200",
    ]


def test_every_hour_goes_by_real_time() -> None:
    night = ("2026-03-29 01:00", "2026-03-29 04:00")
    assert shown("30 * * * *", "Europe/Berlin", *night) == [
        "03-29 01:30 +0100",
        "03-29 03:30 +0200",
    ]
    night = ("2026-10-25 01:00", "2026-10-25 04:00")
    assert shown("30 * * * *", "Europe/Berlin", *night) == [
        "10-25 01:30 +0200",
        "10-25 02:30 +0200",
        "10-25 02:30 +0100",
        "10-25 03:30 +0100",
    ]


def test_a_change_of_half_an_hour() -> None:
    assert shown("15 2 * * *", "Australia/Lord_Howe", "2026-10-03", "2026-10-06") == [
        "10-03 02:15 +1030",
        "10-04 02:30 +1100",
        "10-05 02:15 +1100",
    ]
    assert shown("45 1 * * *", "Australia/Lord_Howe", "2026-04-05", "2026-04-06") == [
        "04-05 01:45 +1100"
    ]


def test_an_hour_that_is_shown_again_after_midnight() -> None:
    """In Newfoundland clocks went back from 00:01 to 23:01 of the day before."""
    zone, cron = ZoneInfo("America/St_Johns"), Cron.parse("*/30 * * * *")
    begin = datetime(2010, 11, 7, 2, 0, tzinfo=UTC)
    found: list[datetime] = []
    for n in range(4):  # the second begins on the day after that of its times
        look = begin + n * timedelta(minutes=30)
        found += due_between(cron, zone, look, look + timedelta(minutes=30))
    assert [f"{at.astimezone(zone):%d %H:%M}" for at in found] == [
        *("07 00:00", "06 23:30", "07 00:00", "07 00:30")
    ]


def test_a_day_that_a_country_left_out() -> None:
    assert shown("15 2 * * *", "Pacific/Apia", "2011-12-29", "2012-01-01") == [
        "12-29 02:15 -1000",
        "12-31 00:00 +1400",
        "12-31 02:15 +1400",
    ]


@pytest.mark.parametrize(
    "line, expected",
    [
        ("0 6 * * mon-fri", "2026-11-23 06:00"),
        ("0 6 * * 7", "2026-11-22 06:00"),
        ("0 6 * * 0", "2026-11-22 06:00"),
        ("0 6 29 feb *", "2028-02-29 06:00"),
        ("*/20 5 * * *", "2026-11-21 05:00"),
        ("0 22-1 * * *", "2026-11-21 00:00"),
        ("0 6 1 * sun", "2026-11-22 06:00"),  # crontab(5): one of the two days is enough
        ("0 6 */2 * sun", "2026-11-29 06:00"),  # and where one begins with a star, it takes both
    ],
)
def test_the_next_due_time(line: str, expected: str) -> None:
    after = datetime(2026, 11, 20, 23, 30, tzinfo=UTC)
    due = next_due(Cron.parse(line), ZoneInfo("UTC"), after)
    assert due is not None and f"{due:%Y-%m-%d %H:%M}" == expected


def test_a_day_that_never_comes() -> None:
    after = datetime(2026, 11, 20, tzinfo=UTC)
    assert next_due(Cron.parse("0 0 31 2 *"), ZoneInfo("UTC"), after) is None


@pytest.mark.parametrize(
    "line, said",
    [
        ("15 2 * *", "4 fields"),
        ("", "0 fields"),
        ("60 2 * * *", "'60' is not a minute; it takes 0 to 59"),
        ("15 24 * * *", "'24' is not a hour"),
        ("15 2 0 * *", "'0' is not a day of month; it takes 1 to 31"),
        ("15 2 * 13 *", "'13' is not a month"),
        ("15 2 * * 8", "'8' is not a day of week"),
        ("jan 2 * * *", "'jan' is not a minute"),
        ("15 2 * * monkey", "'monkey' is not a day of week"),
        ("15 2 * monday *", "'monday' is not a month"),
        ("1-5-7 2 * * *", "'1-5-7' is not a minute"),
        ("*/5/2 2 * * *", "'*/5/2' is not a minute"),
        ("*/0 2 * * *", "'*/0' is not a minute"),
        ("5-1/2 2 * * *", "'5-1/2' is not a minute"),
        ("1,,2 2 * * *", "'' is not a minute"),
    ],
)
def test_a_bad_line_is_refused_with_the_name_of_its_field(line: str, said: str) -> None:
    with pytest.raises(InputError) as refused:
        Cron.parse(line)
    assert said in str(refused.value)


@pytest.mark.parametrize("name", ["Europe/Berln", "", "../etc/passwd", "Europe", "Nowhere/At/All"])
def test_an_unknown_zone(name: str) -> None:
    with pytest.raises(InputError, match="no time zone"):
        zone_named(name)
    if name == "Europe/Berln":
        with pytest.raises(InputError, match="did you mean Europe/Berlin"):
            zone_named(name)


def test_a_deadline_is_the_next_time_that_the_clock_shows() -> None:
    due = datetime(2026, 3, 28, 22, 0, tzinfo=UTC)  # 23:00 in Berlin; the clock is put on at night
    assert next_time("06:00", BERLIN, due) == datetime(2026, 3, 29, 4, 0, tzinfo=UTC)
    assert next_time("02:30", BERLIN, due) == datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
    assert next_time("23:00", BERLIN, due) == datetime(2026, 3, 29, 21, 0, tzinfo=UTC)


INSTANTS = st.datetimes(datetime(2005, 1, 1), datetime(2036, 1, 1)).map(
    lambda at: at.replace(tzinfo=UTC, second=0, microsecond=0)
)
DAILY = st.builds("{} {} * * *".format, st.integers(0, 59), st.integers(0, 23))


@settings(max_examples=50)
@given(DAILY, st.sampled_from(ZONES), INSTANTS)
def test_a_daily_time_is_due_once_for_each_day(line: str, zone: str, after: datetime) -> None:
    """Over 400 days: a day apart by the clock, except for a day that a country left out."""
    info = ZoneInfo(zone)
    found = due_between(Cron.parse(line), info, after, after + timedelta(days=400))
    days = [at.astimezone(info).date() for at in found]
    assert len(found) in (399, 400, 401)
    if zone != "Pacific/Apia":
        assert all(b - a == timedelta(days=1) for a, b in itertools.pairwise(days))
    minute, hour = map(int, line.split()[:2])
    local = [at.astimezone(info) for at in found]
    wrong = [at for at in local if (at.hour, at.minute) != (hour, minute)]
    assert len(wrong) <= 6  # the nights on which the time is jumped over


@settings(max_examples=50)
@given(
    st.sampled_from(["*/7 * * * *", "30 2 * * *", "0,30 1-3 * * *", "15 */2 * * *"]),
    st.sampled_from(ZONES),
    INSTANTS,
    st.lists(st.integers(1, 3000), min_size=1, max_size=6),
)
def test_looks_at_any_moments_find_the_same(
    line: str, zone: str, after: datetime, minutes: list[int]
) -> None:
    """Nothing is found twice and nothing falls between two looks."""
    cron, info = Cron.parse(line), ZoneInfo(zone)
    found, seen = [], after
    for n in minutes:
        until = seen + timedelta(minutes=n)
        found += due_between(cron, info, seen, until)
        seen = until
    assert found == due_between(cron, info, after, seen)
    assert found == sorted(set(found))


@settings(max_examples=50)
@given(st.sampled_from(ZONES), INSTANTS)
def test_every_minute_is_due_every_minute(zone: str, after: datetime) -> None:
    until = after + timedelta(hours=5)
    found = due_between(Cron.parse("* * * * *"), ZoneInfo(zone), after, until)
    assert found == [after + timedelta(minutes=n) for n in range(1, 301)]


def test_the_machine_s_zone_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    before = shown("30 2 * * *", "Europe/Berlin", "2026-03-28", "2026-03-31")
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert shown("30 2 * * *", "Europe/Berlin", "2026-03-28", "2026-03-31") == before
    finally:
        monkeypatch.undo()
        time.tzset()
