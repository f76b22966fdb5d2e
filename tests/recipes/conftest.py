"""What the recipes need: a scored demo, a cluster, and an environment for each tool."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rankmill.settings import CHECKOUT
from tests.support.command import environment, rankmill

PAGE = (CHECKOUT / "docs" / "recipes.md").read_text()


@dataclass(frozen=True)
class Search:
    """A folder in the place of the page's /srv/search, with the candidates of three queries."""

    folder: Path

    def block(self, heading: str, title: str = "", language: str = r"\w+") -> str:
        """Return the block of a section, with the folder's name in it."""
        (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
        opening = rf'```{language} title="{re.escape(title)}"' if title else f"```{language}"
        (text,) = re.findall(rf"^{opening}\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
        return str(text).replace("/srv/search", str(self.folder))

    def file(self, heading: str, title: str) -> Path:
        """Write the block of a section as a file, and return its path."""
        path = self.folder / title
        path.parent.mkdir(exist_ok=True)
        path.write_text(self.block(heading, title))
        return path

    def write_candidates(self) -> None:
        table = pq.read_table(CHECKOUT / "examples" / "packages.parquet").slice(0, 150)
        pq.write_table(table, self.folder / "candidates.parquet")


@pytest.fixture
def search(tmp_path: Path) -> Search:
    found = Search(tmp_path)
    found.write_candidates()
    return found


@pytest.fixture(scope="session")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Search:
    """Return such a folder with the result of `rankmill run`."""
    found = Search(tmp_path_factory.mktemp("search"))
    found.write_candidates()
    command = ["run", "candidates.parquet", "scored", "--model", "demo", "--top-k", "10"]
    done = rankmill(*command, folder=found.folder)
    assert done.returncode == 0, done.stderr
    return found


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Start a cluster, and yield the environment in which `rankmill submit` finds it."""
    command = [sys.executable, "-m", "producer.cli", "up", "--no-flower", "--no-beat"]
    env = {**environment(), "RANKMILL_RUNTIME": str(tmp_path), "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(
        ["env", "--default-signal=INT", *command, "--device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
    ) as process:
        assert process.stdout is not None
        shown = ""
        while "rankmill watch" not in shown and (line := process.stdout.readline()):
            shown += line
        url = re.search(r"export RANKMILL_BROKER_URL=(\S+)", shown)
        try:
            assert url, shown
            scripts = str(Path(sys.executable).parent)
            yield {
                **os.environ,
                "RANKMILL_BROKER_URL": url[1],
                "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
            }
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)


@pytest.fixture(scope="session")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """Install packages into an environment of their own, and return the folder of its programs."""
    made = []

    def install(*packages: str) -> Path:
        folder = tmp_path_factory.mktemp("environment")
        made.append(folder)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, *packages], check=True)
        return folder / "bin"

    yield install
    for folder in made:
        shutil.rmtree(folder)
