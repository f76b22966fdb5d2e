"""The documentation holds: generated parts are current, and names, commands and links exist."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest

from producer.calls.keywords import JobKeywords
from rankmill.contract.job import JobOptions
from rankmill.settings import CHECKOUT, Settings, settings

README = CHECKOUT / "README.md"
AT_THE_ROOT = [README, *(CHECKOUT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md"))]
PAGES = [*AT_THE_ROOT, *sorted((CHECKOUT / "docs").rglob("*.md"))]
NOW = [page for page in PAGES if page.name != "CHANGELOG.md"]  # the others speak of this version
OPTIONS_OF_OTHERS = {"--build-arg", "--profile"}
VARIABLES_OF_OTHERS = {"RANKMILL_DATA", "RANKMILL_PROFILE", "RANKMILL_VERSION"}


def name(page: Path) -> str:
    return str(page.relative_to(CHECKOUT))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def prose(page: Path) -> str:
    """Return the page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def written(page: Path) -> str:
    """Return the prose of a page without its generated parts."""
    return re.sub(r"<!-- ([a-z ]+) -->.*?<!-- /\1 -->", "", prose(page), flags=re.DOTALL)


def commands_shown(page: Path) -> Iterator[list[str]]:
    """Yield the words of each `rankmill` command of the console blocks, `rankmill` left out."""
    for block in blocks(page, "console"):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True) if line[:2] == "$ " else []
            one_shot = re.match(r"\$ docker compose run --rm (cli|models)\b", line)
            if one_shot:  # as docker-compose.yml starts them; models lists unless it is given more
                words = words[5:]
                words = words if one_shot[1] == "cli" else ["models", *(words or ["list"])]
                yield words
            while words and "=" in words[0]:
                words = words[1:]
            if words and words[0].rpartition("/")[2] == "rankmill":
                yield words[1:]


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", CHECKOUT / "docs" / "tables.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def commands(tables: ModuleType) -> dict[str, Any]:
    return dict(tables.commands())


def test_each_job_option_is_a_keyword_of_pythons_calls() -> None:
    fields = {name for name, field in JobOptions.model_fields.items() if field.description}
    assert JobKeywords.__annotations__.keys() - {"model", "revision"} == fields


def test_the_generated_parts_are_those_of_the_code(tables: ModuleType) -> None:
    for page in tables.pages():
        assert tables.with_tables(page.read_text()) == page.read_text(), "run make docs"
    text = "".join(page.read_text() for page in PAGES)
    assert all(f"<!-- {each} -->" in text for each in tables.TABLES)
    assert "RANKMILL_BROKER_URL" in tables.settings_table()
    assert (CHECKOUT / "docs" / "metrics.md").read_text().count("| `rankmill") == 42


def test_the_readme_is_a_landing_page() -> None:
    text = README.read_text()
    assert len(text.splitlines()) <= 130
    assert "$ make demo" in text and "$ make test" in text


def test_the_readme_names_the_answer_of_its_query_and_its_place_before() -> None:
    text = README.read_text()
    shown = re.search(r"The query describes `([^`]+)`, which BM25 had at place (\d+)", text)
    query = re.search(r"^```text\n(.+)$", text, re.MULTILINE)
    assert shown and query
    rows = pq.read_table(CHECKOUT / "examples" / "packages.parquet").to_pylist()
    group = [row for row in rows if row["query"] == query[1]]
    qrels = (CHECKOUT / "examples" / "packages.qrels").read_text().splitlines()
    answers = {words[2] for line in qrels if (words := line.split())[0] == group[0]["query_id"]}
    assert answers == {shown[1]}
    assert [row["doc_id"] for row in group].index(shown[1]) + 1 == int(shown[2])
    assert re.search(rf"│ {shown[1]} +│ +{shown[2]} │", text)


@pytest.mark.parametrize("page", NOW, ids=name)
def test_every_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    named = {
        word
        for words in re.findall(r"(?:^\$ |`)make ([a-z -]+)", page.read_text(), re.MULTILINE)
        for word in words.split()
    }
    assert named <= targets


@pytest.mark.parametrize("page", NOW, ids=name)
def test_every_command_and_option_exists(page: Path, commands: dict[str, Any]) -> None:
    for words in re.findall(r"`rankmill ([a-z-]+(?: [a-z-]+)?)", prose(page)):
        first = words.split()[0]
        assert first in commands, words
        if getattr(commands[first], "commands", None):
            assert words in commands or words == first, words
    parameters = [parameter for each in commands.values() for parameter in each.params]
    options = {option for each in parameters for option in (*each.opts, *each.secondary_opts)}
    found = set(re.findall(r"`(--[a-z-]+)", prose(page)))
    general = {"--debug", "--version", "--install-completion"}
    assert found <= options | OPTIONS_OF_OTHERS | general


@pytest.mark.parametrize("page", NOW, ids=name)
def test_every_command_of_a_console_block_is_one_that_the_command_line_takes(
    page: Path, commands: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKMILL_DEVICE", "cpu")  # which --device sets
    for words in commands_shown(page):
        length = 2 if " ".join(words[:2]) in commands else 1
        command = commands[" ".join(words[:length])]
        command.make_context("rankmill", words[length:])
    settings.cache_clear()


@pytest.mark.parametrize("page", NOW, ids=name)
def test_every_setting_exists(page: Path) -> None:
    known = {f"RANKMILL_{field.upper()}" for field in Settings.model_fields}
    found = set(re.findall(r"\bRANKMILL_[A-Z_]+[A-Z]\b", page.read_text()))
    assert found <= known | VARIABLES_OF_OTHERS


@pytest.mark.parametrize("page", NOW, ids=name)
def test_every_file_of_the_repository_that_is_named_exists(page: Path) -> None:
    folders = "rankmill|producer|worker|tasks|tests|docs|docker|bench|models|examples"
    for path in re.findall(rf"`((?:{folders})/[\w./-]+)`", prose(page)):
        assert (CHECKOUT / path).exists(), path


@pytest.mark.parametrize("page", NOW, ids=name)
def test_every_import_of_the_python_blocks_exists(page: Path) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module:
                room = node.module.split(".")[0]
                if room in ("rankmill", "producer", "worker", "tasks"):
                    module = importlib.import_module(node.module)
                    assert all(hasattr(module, alias.name) for alias in node.names), node.module


@pytest.mark.parametrize("page", AT_THE_ROOT, ids=name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    """`mkdocs build --strict` checks those within docs/."""
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", page.read_text()):
        file = page.parent / target if target else page
        assert file.exists(), target
        headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE) if anchor else []
        slugs = {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}
        assert not anchor or anchor in slugs, f"{target}#{anchor}"
    for source in re.findall(r'src="([^"]+)"', page.read_text()):
        assert (page.parent / source).exists(), source


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_sentences_are_short(page: Path) -> None:
    """At most 25 words are the rule; some more pass, since a full stop is not always found."""
    text = re.sub(r"^[|#].*$", "", written(page), flags=re.MULTILINE)
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]*`", "CODE", text))
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*(?:-|\d+\.) )", text):
        for sentence in re.split(r"(?<=[.!?:;])\**\s+", paragraph):
            assert len(sentence.split()) <= 30, sentence
