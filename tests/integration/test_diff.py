"""`rankmill diff` as a user types it, on disk and with everything on S3."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rankmill import storage
from rankmill.contract.drift import Drift
from rankmill.settings import CHECKOUT
from tests.support.command import called
from tests.support.finished import candidates, finished, planned
from tests.support.inputs import everything_under, write

OLD = [
    *candidates("a", ["a1", "a2", "a3"], ["a2", "a1", "a3"]),
    *candidates("b", ["b1", "b2"], ["b1", "b2"]),
]
NEW = [
    *candidates("a", ["a1", "a2", "a4"], ["a1", "a2", "a4"]),
    *candidates("b", ["b1", "b2"], ["b1", "b2"]),
]
QRELS = "a 0 a2 1\nb 0 b1 1\n"
PAGE = (CHECKOUT / "docs" / "quality.md").read_text()


def outputs_in(folder: str, tmp_path: Path) -> tuple[str, str]:
    uris = []
    for name, rows in (("old", OLD), ("new [1]", NEW)):
        source = storage.child(folder, name, "in.parquet")
        storage.write_bytes(source, write(rows, tmp_path / "made.parquet").read_bytes())
        output = storage.child(folder, name, "out")
        job = planned([], tmp_path / "unused", input_uri=source, output_uri=output, shard_pairs=3)
        uris.append(finished(job).uri)
    return uris[0], uris[1]


@pytest.mark.parametrize("place", ["local", "s3"])
def test_two_outputs_are_compared_wherever_they_lie(
    place: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    folder = str(tmp_path) if place == "local" else request.getfixturevalue("s3") + "/a folder"
    old, new = outputs_in(folder, tmp_path)
    qrels = storage.child(folder, "qrels")
    storage.write_bytes(qrels, QRELS.encode())

    done = called("diff", old, new, "--k", "1", "--k", "3", "--qrels", qrels, "--json")
    assert done.returncode == 0, done.stderr
    drift = Drift.model_validate_json(done.stdout)
    assert [(each.k, each.churn) for each in drift.churn] == [(1, 0.5), (3, 0.166666666667)]
    assert next((each.measure, each.after) for each in drift.ndcg) == ("nDCG@1", 0.5)
    assert drift.gate is None

    shown = called("diff", old, new)
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert "a (rbo 0.6300)" in shown.stdout
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]
    assert ["1", "a2", "2", "a1", "2", "3.0000"] in rows
    assert ["3", "a3", "gone", "a4", "new", "1.0000"] in rows
    assert f"new      {new}: 5 pairs" in lines
    assert "pairs    4 in both; 1 new (20.0%), 1 vanished (20.0%)" in lines
    assert "top 10   overlap 0.8333, churn 0.1667; 1 of 2 queries changed" in lines


def test_a_gate_that_fails_is_exit_1_and_names_what_was_measured(tmp_path: Path) -> None:
    old, new = outputs_in(str(tmp_path), tmp_path)
    before = everything_under(tmp_path)
    gates = ("--fail-if", "churn@1>0.3", "--fail-if", "rbo<0.5")
    failed = called("diff", old, new, *gates)
    assert failed.returncode == 1
    assert failed.stderr.strip() == "rankmill: churn@1>0.3: it is 0.5"
    assert [line.split() for line in failed.stdout.splitlines()[-2:]] == [
        ["churn@1>0.3", "0.5000", "failed"],
        ["rbo<0.5", "0.8150", "passed"],
    ]
    done = called("diff", old, new, *gates, "--json")
    assert (done.returncode, json.loads(done.stdout)["gate"]["passed"]) == (1, False)
    assert called("diff", old, new, "--fail-if", "churn@1>0.5").returncode == 0
    assert everything_under(tmp_path) == before


def test_the_documentation_shows_what_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its two nights are BM25's ranking, and the same with the right answers moved up."""
    block = re.search(r"```console\n\$ rankmill (diff scored/.*)\n((?:.*\n)*?)```", PAGE)
    assert block
    rows = pq.read_table(CHECKOUT / "examples" / "packages.parquet").to_pylist()
    for name, some, gain in (("monday", rows[:-150], 0), ("tuesday", rows[150:], 4)):
        scored = [{**row, "document": str(row["bm25"] + gain * row["is_answer"])} for row in some]
        output = str(tmp_path / "scored" / name)
        finished(planned(scored, tmp_path / name, output_uri=output, top_k=10))
    shutil.copy(CHECKOUT / "examples" / "packages.qrels", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    done = called(*shlex.split(block[1]))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.replace(str(tmp_path), "/home/you").splitlines()
    printed = "".join(line.rstrip() + "\n" for line in lines)
    begin, end = block[2].split("…\n")
    assert printed.startswith(begin) and printed.endswith(end)


def test_bad_use_is_one_line(tmp_path: Path) -> None:
    old, new = outputs_in(str(tmp_path), tmp_path)
    for arguments, message in {
        (old, str(tmp_path)): "no job was submitted to this folder",
        (old, new, "--fail-if", "churn>0.3"): "churn needs a place from 1 on, as churn@10",
        (old, new, "--fail-if", "ndcg@10<0"): "needs judgments: give --qrels",
        (old, new, "--qrels", str(tmp_path / "none")): "no such file",
    }.items():
        done = called("diff", *arguments)
        assert done.returncode == 2
        assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1
        assert done.stdout == ""
