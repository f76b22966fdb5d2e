"""Paths that say when."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from producer.schedules import templates
from producer.schedules.runs import run_name
from rankmill.errors import InputError

DUE = datetime(2026, 11, 21, 2, 15, tzinfo=ZoneInfo("Europe/Berlin"))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("s3://b/pairs/dt={date}/*.parquet", "s3://b/pairs/dt=2026-11-21/*.parquet"),
        ("/in/{due:%Y/%m/%d/%H%M}", "/in/2026/11/21/0215"),
        ("/in/{previous_date},/more/{date}", "/in/2026-11-20,/more/2026-11-21"),
        ("/in/plain", "/in/plain"),
    ],
)
def test_templates_are_of_the_due_time(text: str, expected: str) -> None:
    templates.check(text)
    assert templates.rendered(text, DUE) == expected


def test_the_day_is_that_of_the_schedule_s_zone() -> None:
    late = datetime(2026, 11, 20, 23, 30, tzinfo=UTC).astimezone(ZoneInfo("Europe/Berlin"))
    assert templates.rendered("{date}", late) == "2026-11-21"


@pytest.mark.parametrize(
    "text, said",
    [
        ("/in/{dat}", "unknown template {dat}; the known ones are {date}"),
        ("/in/{date:%Y}", "unknown template {date:%Y}"),
        ("/in/{due}", "unknown template {due}"),
        ("/in/{due:%Q}", "unknown template {due:%Q}"),
        ("/in/{latest:/in/dt=1}", "unknown template"),
        ("/in/{latest:/in/dt=*}", "put it first"),
        ("{latest:/in/**}", "** is not allowed"),
        ("/in/{date", "unmatched brace"),
        ("/in/date}", "unmatched brace"),
    ],
)
def test_an_unknown_template_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError) as refused:
        templates.check(text)
    assert said in str(refused.value)


def test_an_output_has_no_latest() -> None:
    with pytest.raises(InputError, match="unknown template"):
        templates.check("{latest:/out/dt=*}", latest=False)


def test_the_newest_partition_is_the_last_by_name_that_has_files(tmp_path: Path) -> None:
    for name in ("dt=9", "dt=10", "dt=11", "dt=12", "other=13"):
        (tmp_path / name).mkdir()
    for name in (
        "dt=9/a.parquet",
        "dt=10/a.parquet",
        "dt=11/_SUCCESS",
        "dt=12/.part",
        "other=13/a",
    ):
        (tmp_path / name).touch()
    text = f"{{latest:{tmp_path}/dt=*}}/*.parquet"
    templates.check(text)
    assert templates.rendered(text, DUE) == f"{tmp_path}/dt=10/*.parquet"


def test_the_newest_through_several_levels(tmp_path: Path) -> None:
    for name in ("y=2025/m=12/en", "y=2026/m=02/en", "y=2026/m=11/de"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.parquet").touch()
    assert templates.rendered(f"{{latest:{tmp_path}/y=*/m=*/en}}", DUE).endswith("y=2026/m=02/en")
    with pytest.raises(InputError, match=r"\{latest:.*fr\}: no match that contains files"):
        templates.rendered(f"{{latest:{tmp_path}/y=*/m=*/fr}}", DUE)


def test_relative_paths_become_absolute_and_templates_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert templates.absolute("in/{due:%Y/%m}") == f"{tmp_path}/in/{{due:%Y/%m}}"
    assert templates.absolute("{latest:in/dt=*}/x") == f"{{latest:{tmp_path}/in/dt=*}}/x"
    assert templates.absolute("s3://b/{date}") == "s3://b/{date}"


def test_the_folder_that_stays() -> None:
    assert templates.fixed_folder("s3://b/out/") == "s3://b/out"
    assert templates.fixed_folder("s3://b/out/y={due:%Y}/x") == "s3://b/out"
    assert templates.fixed_folder("{date}/x") == ""


def test_a_run_s_folder_is_named_by_the_clock_and_never_by_two_runs() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    first = datetime(2026, 10, 25, 0, 30, tzinfo=UTC).astimezone(berlin)
    second = datetime(2026, 10, 25, 1, 30, tzinfo=UTC).astimezone(berlin)
    assert run_name(first) == "2026-10-25T02-30"
    assert run_name(second) == "2026-10-25T02-30-again"
    assert run_name(DUE.replace(second=7)) == "2026-11-21T02-15-07"
