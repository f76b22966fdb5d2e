"""The README stays the truth: its tables are generated, its commands are the Makefile's."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_tables_are_those_of_the_code() -> None:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    assert spec and spec.loader
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    generated = (ROOT / "docs" / name for name in ("metrics.md", "models.md"))
    for text in (README, *(path.read_text() for path in generated)):
        assert tables.with_tables(text) == text, "run make docs"
    assert "RANKMILL_BROKER_URL" in tables.settings_table()
    assert (ROOT / "docs" / "metrics.md").read_text().count("| `rankmill") == 31


def test_every_make_target_that_the_readme_names_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        word
        for words in re.findall(r"(?:^\$ |`)make ([a-z -]+)", README, re.MULTILINE)
        for word in words.split()
    }
    assert {"demo", "test"} <= named <= targets


def test_every_command_and_option_that_the_readme_names_is_there() -> None:
    from typer.main import get_command

    from producer.cli.app import app

    commands = vars(get_command(app))["commands"]
    named = set(re.findall(r"rankmill ([a-z]+)(?: [A-Z]|`)", README))
    assert {"run", "submit"} <= named <= set(commands)
    parameters = [parameter for each in commands.values() for parameter in each.params]
    options = {option for each in parameters for option in (*each.opts, *each.secondary_opts)}
    assert set(re.findall(r"`(--[a-z-]+)", README)) <= options


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
