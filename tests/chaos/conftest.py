"""The reference result, a fresh stage for each fault, and the table of outcomes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rankmill.broker import app
from rankmill.settings import settings
from tests.chaos.stage import Outcome, Stage, shard_pairs, stage, write_source

_HEADER = (
    "| fault | recovered in | job ended after | shards run twice | rows lost |\n"
    "| --- | --- | --- | --- | --- |\n"
)


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("source") / "in.parquet")


@pytest.fixture
def empty_stage(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """Yield a Redis without workers; settings are the defaults."""
    with tempfile.TemporaryDirectory(prefix="rankmill-", dir="/tmp") as folder:
        broker_url = f"redis+socket://{folder}/redis.sock"
        monkeypatch.setenv("RANKMILL_BROKER_URL", broker_url)
        settings.cache_clear()
        app.cache_clear()
        with stage(tmp_path, source, broker_url) as built:
            yield built
        settings.cache_clear()
        app.cache_clear()


@pytest.fixture
def three_workers(empty_stage: Stage) -> Stage:
    for name in ("a", "b", "c"):
        empty_stage.start_worker(name)
    return empty_stage


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Path:
    """Return the result of an undisturbed run with one worker."""
    output = tmp_path_factory.mktemp("reference") / "out"
    options = ["--model", "demo", "--precision", "fp32", "--shard-pairs", str(shard_pairs(source))]
    command = [sys.executable, "-m", "producer.cli", "run", str(source), str(output), *options]
    one_thread = {**os.environ, "RANKMILL_THREADS": "1"}  # as the workers on stage
    subprocess.run(command, check=True, capture_output=True, timeout=300, env=one_thread)
    return output


@pytest.fixture(scope="session")
def table() -> Iterator[list[Outcome]]:
    outcomes: list[Outcome] = []
    yield outcomes
    text = _HEADER + "".join(f"{outcome.line()}\n" for outcome in outcomes)
    print(f"\n{text}")
    target = os.environ.get("RANKMILL_CHAOS_TABLE")
    if target:
        page = Path(target)
        before = page.read_text().partition(_HEADER)[0] if page.exists() else ""
        page.write_text(before + text)
