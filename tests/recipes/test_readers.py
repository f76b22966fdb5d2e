"""The recipes without tools of their own work as printed."""

from __future__ import annotations

import shlex
import subprocess
import sys

import duckdb
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from rankmill.settings import CHECKOUT
from tests.recipes.conftest import Search
from tests.support.command import environment, rankmill

# Spark and a training run start slowly on a busy machine.
pytestmark = pytest.mark.timeout(900)


def test_the_line_of_cron_scores_and_does_it_again(search: Search) -> None:
    command = search.block("Cron").split(maxsplit=5)[5]
    rankmill = f"{sys.executable} -m producer.cli"
    for _ in range(2):
        done = subprocess.run(
            ["sh", "-c", command.replace("rankmill", rankmill)],
            capture_output=True,
            text=True,
            env=environment(),
        )
        assert done.returncode == 0, done.stderr
    assert (search.folder / "scored" / "_SUCCESS").exists()


def test_duckdb_finds_the_queries_without_an_answer(scored: Search) -> None:
    rows = duckdb.sql(scored.block("DuckDB")).fetchall()
    best = [row[2] for row in rows]
    assert len(rows) == 3 and best == sorted(best)


@pytest.mark.recipes  # Java is slow to start; test_readers.py of tests/integration has Spark, too
def test_spark_joins_the_texts(scored: Search) -> None:
    file = scored.file("Spark", "spark_read.py")
    environ = {**environment(), "SPARK_LOCAL_IP": "127.0.0.1"}
    done = subprocess.run([sys.executable, file], capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stderr
    top = pq.read_table(scored.folder / "top")
    assert top.num_rows == 9 and set(top["rank"].to_pylist()) == {1, 2, 3}
    assert all(top["document"].to_pylist())


def test_a_student_learns_the_logits(scored: Search) -> None:
    """The page's student is on the hub; here it is the demo model, whose weights then change."""
    command = shlex.split(scored.block("Train a student", language="console"))[2:]
    done = rankmill(*command, folder=scored.folder)
    assert done.returncode == 0, done.stderr
    file = scored.file("Train a student", "train_student.py")
    demo = CHECKOUT / "models" / "demo-reranker"
    text = file.read_text().replace("jhu-clsp/ettin-encoder-17m", str(demo))
    file.write_text(text.replace("num_train_epochs=1", "num_train_epochs=3"))
    env = {**environment(), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, file], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    before, after = (
        load_file(folder / "model.safetensors")["classifier.weight"]
        for folder in (demo, scored.folder / "student")
    )
    assert not before.equal(after)
