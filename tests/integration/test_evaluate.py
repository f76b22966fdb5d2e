"""`rankmill eval` as a user types it, on disk and with everything on S3."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from pathlib import Path

import pytest

from rankmill import storage
from tests.support.command import called
from tests.support.finished import candidates, finished, planned
from tests.support.inputs import write

ROWS = [
    *candidates("a", ["a1", "a2", "a3"], ["a2", "a1", "a3"]),
    *candidates("b", ["b1", "b2"], ["b1", "b2"]),
]
QRELS = "a 0 a2 1\nb 0 b2 1\n"


def evaluation(*arguments: str) -> subprocess.CompletedProcess[str]:
    return called("eval", *arguments, variables={**os.environ, "COLUMNS": "200"})


@pytest.mark.parametrize("place", ["local", "s3"])
def test_a_job_is_measured_wherever_it_lies(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = str(tmp_path) if place == "local" else request.getfixturevalue("s3") + "/a folder"
    source, qrels = storage.child(folder, "in.parquet"), storage.child(folder, "qrels.gz")
    storage.write_bytes(source, write(ROWS, tmp_path / "made.parquet").read_bytes())
    storage.write_bytes(qrels, gzip.compress(QRELS.encode()))
    output = storage.child(folder, "out")
    finished(planned([], tmp_path / "unused", input_uri=source, output_uri=output, top_k=2))

    done = evaluation(output, "--qrels", qrels, "--recall-at", "1", "--recall-at", "2", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    means = {each["measure"]: (each["before"], each["after"]) for each in facts["comparisons"]}
    assert means["RR@2"] == (0.5, 0.75)
    assert means["R@1"] == (0, 0.5) and means["R@2"] == (1, 1)
    assert facts["n_queries"] == 2 and facts["top_k"] == 2

    shown = evaluation(output, "--qrels", qrels)
    assert shown.returncode == 0, shown.stderr
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert ["RR@2", "0.5000", "0.7500", "+0.2500", "1.0000", "1", "0", "1"] in lines
    left_out = "nDCG@10, RR@10, R@100: the result has no more than 2 rows of a query to compare"
    assert f"left out {left_out}".split() in lines
    assert "by rank, the best 2 of each query" in shown.stdout


def test_bad_use_is_one_line(tmp_path: Path) -> None:
    output = finished(planned(ROWS, tmp_path)).uri
    for arguments, message in {
        (output, "--qrels", str(tmp_path / "none")): "no such file",
        (str(tmp_path), "--qrels", "none"): "no job was submitted to this folder",
        (output, "--qrels", str(tmp_path)): "is a folder; name the file of the judgments",
    }.items():
        done = evaluation(*arguments)
        assert done.returncode == 2
        assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1
