"""The documentation works as printed: its commands run in order, on a small input."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankmill.settings import CHECKOUT
from tests.conftest import forget_settings
from tests.support.command import rankmill

PAGE = (CHECKOUT / "docs" / "getting-started.md").read_text()


def blocks(heading: str, language: str) -> list[str]:
    section = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    (text,) = (each for each in section if each.startswith(heading + "\n"))
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(*headings: str) -> Iterator[list[str]]:
    """Yield the arguments of each `rankmill` command below some headings."""
    for block in (each for heading in headings for each in blocks(heading, "console")):
        for line in block.splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words[0] == "rankmill":
                yield words[1:]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three queries of the demo, the same as candidates.parquet, and the demo model as bge."""
    (tmp_path / "examples").mkdir()
    rows = pq.read_table(CHECKOUT / "examples" / "packages.parquet").slice(0, 150)
    for name in ("examples/packages.parquet", "candidates.parquet"):
        pq.write_table(rows, tmp_path / name)
    shutil.copy(CHECKOUT / "examples" / "packages.qrels", tmp_path / "examples")
    (tmp_path / "BAAI").mkdir()
    (tmp_path / "BAAI" / "bge-reranker-v2-m3").symlink_to(CHECKOUT / "models" / "demo-reranker")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_of_one_machine_work(folder: Path) -> None:
    shown = list(commands("Install", "Rerank", "Estimate first", "Measure"))
    assert [words[0] for words in shown] == ["doctor", "run", "run", "estimate", "eval"]
    for words in shown:
        done = rankmill(*words)
        assert done.returncode == 0, done.stdout + done.stderr
    for output in ("demo-out", "scored"):
        ranks = pq.read_table(folder / output)["rank"].to_pylist()
        assert ranks == [*range(1, 11)] * 3
    (block,) = blocks("Read the result", "python")
    names: dict[str, pa.Table] = {}
    exec(block, names)
    assert len(names["best"]) == 3


def test_the_commands_of_a_cluster_work(
    worked_redis: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = list(commands("On a cluster"))
    assert [words[0] for words in shown] == ["worker", "submit", "watch"]
    monkeypatch.setenv("RANKMILL_BROKER_URL", worked_redis)
    forget_settings()
    for words in shown[1:]:  # the worker runs
        done = rankmill(*words)
        assert done.returncode == 0, done.stderr
    assert pq.read_table(folder / "scored").num_rows == 30
    submit, _by_name = blocks("From Python", "python")
    exec(submit, {})  # the same job: there is nothing left to do
    forget_settings()


def test_the_estimate_prints_what_its_page_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (CHECKOUT / "docs" / "estimate.md").read_text()
    shown = re.search(r"^```console\n\$ rankmill (.*)\n((?:.*\n)*?)```", page, re.MULTILINE)
    assert shown
    monkeypatch.chdir(CHECKOUT)
    monkeypatch.setenv("COLUMNS", "80")
    done = rankmill(*shlex.split(shown[1]))
    assert done.returncode == 0, done.stderr
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    wanted = shown[2].splitlines()
    at = next(n for n, line in enumerate(wanted) if line.startswith("model "))
    assert lines[at].startswith("model       demo: packed, ")  # another CPU has another precision
    assert lines[:at] + lines[at + 1 :] == wanted[:at] + wanted[at + 1 :]
