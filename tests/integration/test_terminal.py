"""Real commands in a real pseudo-terminal, in shells that complete, and in other encodings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from producer.cli.app import whole_app
from rankmill.errors import InputError
from rankmill.output import run_notes
from tests.support.command import rankmill
from tests.support.inputs import pairs, write
from tests.support.terminal import in_terminal

RUN = ("run", "in.parquet", "out", "--model", "null", "--shard-pairs", "16")


def test_a_run_shows_its_phases_in_one_line(tmp_path: Path) -> None:
    write(pairs(20, 8), tmp_path / "in.parquet")
    code, shown = in_terminal(44, tmp_path, *RUN, NO_COLOR="1", PYTHONIOENCODING="ascii")
    assert code == 0, shown
    progress = shown.partition("scored ")[0]
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", progress))
    assert max(map(len, lines)) <= 44
    phases = [line.split("  ")[0] for line in lines if line.strip()]
    assert list(dict.fromkeys(phases))[:2] == ["starting", "loading the model"]
    assert "succeeded" in phases
    assert "loading the model  0:00:0" in progress
    assert "\x1b[3" not in shown  # no colour
    assert f"rankmill export {tmp_path / 'out'} --to trec" in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands(shell: str) -> None:
    if shell == "fish":
        typed = {"_TYPER_COMPLETE_FISH_ACTION": "get-args", "_TYPER_COMPLETE_ARGS": "rankmill re"}
    elif shell == "zsh":
        typed = {"_TYPER_COMPLETE_ARGS": "rankmill re"}
    else:
        typed = {"COMP_WORDS": "rankmill re", "COMP_CWORD": "1"}
    environment = {"_RANKMILL_COMPLETE": f"complete_{shell}", **typed}
    done = CliRunner().invoke(whole_app(), [], prog_name="rankmill", env=environment)
    assert {"resume", "retry-rejects", "report"} <= set(re.findall(r"[a-z-]+", done.output))
    assert "submit" not in done.output


def test_a_wrong_setting_is_one_line_however_many_jobs_ran_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RANKMILL_BROKER_URL", "redis://localhost:99999")
    run_notes.note(str(tmp_path / "gone"))
    done = rankmill("jobs")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("rankmill: RANKMILL_BROKER_URL: cannot be read; a port is a number")


def test_a_wrong_time_of_a_schedule_is_reported_before_redis_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANKMILL_BROKER_URL", "redis://localhost:1")
    job = ["schedule", "add", "nightly", "in.parquet", "out"]
    for wrong in (["--cron", "0 2 * *"], ["--cron", "0 2 * * *", "--tz", "Europe/Berln"]):
        done = CliRunner().invoke(whole_app(), [*job, *wrong])
        assert isinstance(done.exception, InputError) and wrong[-1] in str(done.exception)


def test_a_choice_that_does_not_exist_is_named_with_its_flag() -> None:
    done = CliRunner().invoke(whole_app(), ["run", "in", "out", "--long-docs", "bogus"])
    assert done.exit_code == 2
    assert "'--long-docs': 'bogus' is not one of 'truncate'" in done.output
