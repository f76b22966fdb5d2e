"""The help of the commands: no line is cut, every command has an example, options are in panels."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from producer.cli.app import whole_app
from producer.cli.options import flag
from rankmill.contract.job import JobOptions
from rankmill.settings import CHECKOUT, settings

N_COLUMNS = 80
PANELS = [
    *("Arguments", "Input", "Model", "Prompt", "Lengths", "Output", "Fusion", "Speed", "Limits"),
    "Options",
]


def commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        yield (*words, name), command
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))


ALL = dict(commands(get_command(whole_app())))
LEAVES = {words: each for words, each in ALL.items() if not hasattr(each, "commands")}


def help_of(words: tuple[str, ...]) -> str:
    done = CliRunner().invoke(
        whole_app(), [*words, "--help"], env={"COLUMNS": str(N_COLUMNS)}, terminal_width=N_COLUMNS
    )
    assert done.exit_code == 0
    return done.stdout


@pytest.mark.parametrize("words", [(), ("schedule",), ("models",)], ids=" ".join)
def test_no_help_line_of_a_command_is_cut(words: tuple[str, ...]) -> None:
    lines = help_of(words).partition("Commands:\n")[2].splitlines()
    below = [each for each in ALL if each[:-1] == words]
    assert len(lines) == len(below)
    for line, each in zip(lines, below, strict=True):
        assert line.split()[0] == each[-1]
        assert line.endswith(".") and "..." not in line, line
        assert len(line.split(maxsplit=1)[1]) <= 45, line


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_every_command_has_an_example_that_it_takes(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = help_of(words)
    assert all(len(line) <= N_COLUMNS for line in text.splitlines())
    [line] = [each.strip() for each in text.splitlines() if each.startswith("    $ ")]
    program, *typed = shlex.split(line.removeprefix("$ "))
    assert program == "rankmill" and tuple(typed[: len(words)]) == words
    monkeypatch.setenv("RANKMILL_DEVICE", "cpu")
    ALL[words].make_context("rankmill", typed[len(words) :])
    settings.cache_clear()


@pytest.mark.parametrize("name", ["run", "submit", "estimate"])
def test_job_options_are_in_panels(name: str) -> None:
    panel, found = "", {}
    for line in help_of((name,)).splitlines():
        if line and line[0] != " ":
            panel = line.rstrip(":")
        elif line.startswith("  --"):
            found[line.split()[0]] = panel
    assert list(dict.fromkeys(found.values())) == PANELS[1:]
    options = {flag(field) for field, each in JobOptions.model_fields.items() if each.description}
    assert options <= {each for each, panel in found.items() if panel != "Options"}


def test_the_help_of_input_names_every_form() -> None:
    text = " ".join(help_of(("run",)).split())
    forms = ("Parquet", "Arrow", "JSONL", "CSV", "TSV", "TREC run", "Delta", "Iceberg")
    for form in (*forms, "file", "folder", "glob"):
        assert form in text
    assert "comma-separated list" in text and "s3:// or hf://" in text


def test_the_version_is_that_of_the_package() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    done = CliRunner().invoke(whole_app(), ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"rankmill {project['version']}\n")


def test_debug_is_in_the_help() -> None:
    assert "--debug" in help_of(())


def test_a_worker_starts_without_the_modules_of_other_commands() -> None:
    code = (
        "import sys\n"
        "from producer.cli.app import main\n"
        "sys.argv[1:] = ['worker', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    print(sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=CHECKOUT, check=True
    )
    assert "Start this machine's workers." in done.stdout
    for module in ("producer.inputs.source", "producer.jobs.submit", "producer.cli.following"):
        assert f"'{module}'" not in done.stdout
