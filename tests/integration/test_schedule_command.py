"""`rankmill schedule` as a user types it, and files of schedules."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from producer.cli.app import main
from producer.schedules.file import read_file
from rankmill.errors import InputError
from tests.support.inputs import pairs, write

FILE = """
[schedule.nightly]
cron = "15 2 * * *"
tz = "Europe/Berlin"
input = "in.parquet"
output = "out"
model = "null"
top_k = 5
keep_cols = ["doc_id"]
deadline = "06:00"

[schedule.weekly]
cron = "0 4 * * sun"
input = "dt={date}/*.parquet"
output = "weekly/y={due:%Y}"
model = "null"
missed = "latest"
"""


@pytest.fixture
def folder(tmp_path: Path, broker_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands run."""
    write(pairs(4, 5), tmp_path / "in.parquet")
    (tmp_path / "schedules.toml").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def schedule(*arguments: object) -> subprocess.CompletedProcess[str]:
    """As tests.support.command, but in this process: a process each would take a minute in all."""
    command = ["rankmill", "schedule", *map(str, arguments)]
    out, err = StringIO(), StringIO()
    on_term = signal.getsignal(signal.SIGTERM)
    try:
        with patch.object(sys, "argv", command), redirect_stdout(out), redirect_stderr(err):
            main()
        code = 0
    except SystemExit as exit:
        code = int(exit.code or 0)
    finally:
        signal.signal(signal.SIGTERM, on_term)
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())


def shown(*arguments: object) -> Any:
    said = schedule(*arguments, "--json")
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout)


def refused(*arguments: object) -> str:
    """Return the one line on stderr of a command that ends with exit code 2."""
    said = schedule(*arguments)
    assert said.returncode == 2 and said.stdout == "", said
    assert len(said.stderr.splitlines()) == 1 and "Traceback" not in said.stderr
    return said.stderr


def test_add_show_pause_run_and_remove(folder: Path) -> None:
    # Due in half a year, on a day when no clock changes, so that it stays the next.
    month = (datetime.now(UTC).month + 5) % 12 + 1
    when = ("--cron", f"15 2 10 {month} *", "--tz", "Europe/Berlin")
    job = ("in.parquet", "out", "--model", "null", "--top-k", 3)
    (added,) = shown("add", "nightly", *when, "--deadline", "06:00", "--", *job)
    assert added["spec"]["job"]["top_k"] == 3 and added["spec"]["output_uri"] == f"{folder}/out"
    assert added["next_due"][0].endswith(("02:15:00+01:00", "02:15:00+02:00"))
    assert shown("add", "nightly", *when, "--deadline", "06:00", *job) == [added]  # no dashes
    assert "a different definition" in refused("add", "nightly", "--cron", "0 3 * * *", *job)

    assert schedule("pause", "nightly").returncode == 0
    assert shown("list")[0]["next_due"] == [] and "paused" in schedule("list").stdout
    assert schedule("resume", "nightly").returncode == 0
    assert shown("show", "nightly")["next_due"] == added["next_due"]

    run = shown("run-now", "nightly")
    assert run["state"] == "running" and run["output_uri"].startswith(f"{folder}/out/")
    assert "has not ended" in refused("run-now", "nightly")
    assert [each["job_id"] for each in shown("history", "nightly")] == [run["job_id"]]
    said = schedule("history", "nightly").stdout
    assert "manually" in said and run["job_id"] in said
    assert "in the time zone Europe/Berlin" in schedule("show", "nightly").stdout

    assert schedule("remove", "nightly").returncode == 0
    assert shown("list") == [] and "no schedule 'nightly'" in refused("show", "nightly")


def test_apply_shows_its_changes_and_makes_them(folder: Path) -> None:
    dry = schedule("apply", "schedules.toml", "--dry-run")
    assert dry.returncode == 0 and dry.stdout.startswith("+ nightly: 15 2 * * * Europe/Berlin")
    assert shown("list") == []
    said = schedule("apply", "schedules.toml")  # nobody is there to be asked
    assert said.returncode == 2 and "--yes" in said.stderr and shown("list") == []
    changed = shown("apply", "schedules.toml", "--yes")
    assert changed == {"added": ["nightly", "weekly"], "changed": [], "removed": [], "same": []}
    specs = {each["spec"]["name"]: each["spec"] for each in shown("list")}
    assert specs["weekly"]["job"]["input_uri"] == f"{folder}/dt={{date}}/*.parquet"
    assert specs["nightly"]["job"]["keep_cols"] == ["doc_id"]

    assert schedule("pause", "nightly").returncode == 0
    text = FILE.replace("top_k = 5", "top_k = 7").partition("[schedule.weekly]")[0]
    (folder / "schedules.toml").write_text(text)
    said = schedule("apply", "schedules.toml", "--dry-run")
    assert said.stdout == "~ nightly\n    top_k: 5 -> 7\n"
    changed = shown("apply", "schedules.toml", "--yes", "--prune")
    assert changed["changed"] == ["nightly"] and changed["removed"] == ["weekly"]
    (nightly,) = shown("list")
    assert nightly["spec"]["paused"] and nightly["spec"]["job"]["top_k"] == 7
    assert shown("apply", "schedules.toml")["same"] == ["nightly"]  # nothing to ask about


def test_apply_is_all_or_nothing(folder: Path) -> None:
    (folder / "schedules.toml").write_text(FILE.replace("0 4 * * sun", "0 4 * * sunday"))
    assert "schedule weekly: cron '0 4 * * sunday'" in refused("apply", "schedules.toml", "--yes")
    assert shown("list") == []


@pytest.mark.parametrize(
    "before, after, said",
    [
        ("top_k = 5", "topk = 5", "schedule.nightly: unknown key 'topk'; did you mean 'top_k'?"),
        ("[schedule.weekly]", "[schedules.weekly]", "unknown key 'schedules'"),
        ('input = "in.parquet"\n', "", "schedule.nightly: 'input' is missing"),
        ("top_k = 5", 'top_k = "five"', "schedule.nightly: top_k 'five' should be a valid integer"),
        ("top_k = 5", "top_k = 0", "schedule.nightly: top_k 0 should be greater"),
        ('"06:00"', '"6 am"', "schedule.nightly: deadline '6 am' is not a time of day"),
        ('missed = "latest"', 'missed = "all"', "schedule.weekly: missed 'all' should be 'skip'"),
        ("top_k = 5", "top_k = ", "Invalid value (at line 8"),
        (
            "[schedule.nightly]",
            '[schedule."night ly"]',
            "name 'night ly' is not a schedule's name",
        ),
        ('output = "out"', "output = 7", "schedule.nightly: output 7 should be a valid string"),
    ],
)
def test_a_bad_file_is_refused_by_its_place(
    tmp_path: Path, before: str, after: str, said: str
) -> None:
    assert FILE.count(before) == 1
    file = tmp_path / "schedules.toml"
    file.write_text(FILE.replace(before, after))
    with pytest.raises(InputError) as refused:
        read_file(str(file))
    assert str(refused.value).startswith(f"{file}: ") and said in str(refused.value)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(InputError, match="No such file"):
        read_file("nowhere.toml")


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("--cron", "15 2 * *"), "cron '15 2 * *': 4 fields"),
        (("--cron", "15 2 * * *", "--tz", "Europe/Berln"), "did you mean Europe/Berlin"),
        (("--cron", "15 2 * * *", "--model", "/no/model"), "no such model folder"),
        (("--cron", "15 2 * * *", "--deadline", "6 am"), "--deadline '6 am' is not a time of day"),
        (("--cron", "15 2 * * *", "--grace-min", "0"), "--grace-min 0 should be greater than or"),
    ],
)
def test_bad_use_is_one_line(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    job = ("in.parquet", "out")
    assert said in refused("add", "nightly", *arguments, "--", *job)
    assert shown("list") == []
