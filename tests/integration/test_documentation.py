"""The documentation works as printed: its commands run in order, on a small input."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankmill.settings import CHECKOUT
from tests.conftest import forget_settings
from tests.support.command import called, rankmill

DEMO = CHECKOUT / "models" / "demo-reranker"
SEARCH = """
from types import SimpleNamespace
import pyarrow.parquet as pq

HITS = pq.read_table("candidates.parquet").to_pylist()

def search(query, size):
    found = [row for row in HITS if row["query"] == query][:size]
    return [
        SimpleNamespace(id=row["doc_id"], text=row["document"], score=1 / n)
        for n, row in enumerate(found, 1)
    ]
"""
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
    (tmp_path / "BAAI" / "bge-reranker-v2-m3").symlink_to(DEMO)
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
        done = called(*words)
        assert done.returncode == 0, done.stderr
    assert pq.read_table(folder / "scored").num_rows == 30
    submit, _by_name = blocks("From Python", "python")
    exec(submit, {})  # the same job: there is nothing left to do
    forget_settings()


def test_the_tutorial_works_for_hits_of_a_search(folder: Path) -> None:
    page = (CHECKOUT / "docs" / "tutorial.md").read_text()
    candidates = pq.read_table(CHECKOUT / "examples" / "packages.parquet").slice(0, 400)
    pq.write_table(candidates, folder / "candidates.parquet")
    pairs = zip(*(candidates[name].to_pylist() for name in ("query_id", "query")), strict=True)
    queries = dict(pairs)
    (folder / "queries.txt").write_text("\n".join(queries.values()))
    (folder / "my_search.py").write_text(SEARCH)
    (folder / "cross-encoder").mkdir()
    (folder / "cross-encoder" / "ms-marco-MiniLM-L6-v2").symlink_to(DEMO)
    (collect,) = re.findall(r'^```python title="collect.py"\n(.*?)^```', page, re.DOTALL | re.M)
    subprocess.run([sys.executable, "-c", collect], check=True)
    right = (folder / "examples" / "packages.qrels").read_text()
    for n, query_id in enumerate(queries):
        right = re.sub(rf"^{query_id} ", f"q{n} ", right, flags=re.M)
    (folder / "right.qrels").write_text(right)
    shown = re.findall(r"^\$ rankmill (.*)$", page, re.M)
    assert [line.split()[0] for line in shown] == ["estimate", "run", "eval", "eval"]
    for line in shown:
        done = called(*shlex.split(line))
        assert done.returncode == 0, line + done.stdout + done.stderr
        assert "nDCG@10" in done.stdout or line.split()[0] != "eval"


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
