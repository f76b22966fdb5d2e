"""`rankmill run` as a user types it: private Redis, real worker processes, real Parquet."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rankmill.output.output import Output
from tests.support.command import called, environment, rankmill
from tests.support.inputs import everything_under, pairs, part_bytes, read_output, wait_for, write


def left_over(folder: Path) -> list[str]:
    """Return the processes with a test's folder in their environment or command line."""
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in text and int(process.name) != os.getpid():
            pids.append(process.name)
    return pids


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a working folder with a space in its name."""
    path = tmp_path / "my job"
    path.mkdir()
    return path


def test_a_run_scores_every_row_and_the_same_run_again_does_nothing(
    folder: Path, model_folder: Path
) -> None:
    rows = pairs(8, 6)
    write(rows, folder / "in.parquet")
    command = ("run", "in.parquet", "out", "--model", model_folder, "--shard-pairs", 10)
    done = rankmill(*command, folder=folder)
    assert done.returncode == 0, done.stderr
    assert {row["doc_id"] for row in read_output(folder / "out")} == {r["doc_id"] for r in rows}
    assert (folder / "out" / "_SUCCESS").exists()
    manifest = Output(str(folder / "out")).read_manifest()
    assert manifest is not None and manifest.n_scored == len(rows) and len(manifest.parts) == 5
    assert "scored" in done.stdout and str(folder / "out") in done.stdout
    before = {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*")}
    assert "already done" not in done.stderr
    again = called(*command, "--json", folder=folder)
    assert again.returncode == 0 and "already done, nothing was run" in again.stderr, again.stderr
    status = json.loads(again.stdout)
    assert status["state"] == "succeeded"
    rate = f"{status['pairs_per_s']:,.0f} pairs/s while scoring"
    assert f"{status['scoring_s']:,.1f} s of scoring, {rate}" in done.stdout
    assert status["pairs_per_s"] == pytest.approx(len(rows) / status["scoring_s"], rel=0.1)
    assert {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*")} == before

    other = called(*command, "--top-k", 2, folder=folder)
    assert other.returncode == 2 and "--overwrite" in other.stderr
    over = called(*command, "--top-k", 2, "--overwrite", folder=folder)
    assert over.returncode == 0, over.stderr
    assert len(read_output(folder / "out")) == 16


def test_an_empty_input_is_a_job_with_an_empty_result(folder: Path, model_folder: Path) -> None:
    table = pq.read_table(write(pairs(1, 1), folder / "in.parquet"))
    pq.write_table(table.slice(0, 0), folder / "in.parquet")
    done = called("run", "in.parquet", "out", "--model", model_folder, folder=folder)
    assert done.returncode == 0, done.stderr
    assert read_output(folder / "out") == []
    assert "score" in pq.read_schema(folder / "out" / "part-00000.parquet").names


def test_too_many_rejects_fail_the_job_and_keep_what_was_scored(
    folder: Path, model_folder: Path
) -> None:
    rows = pairs(2, 5)
    rows[3]["document"] = ""
    write(rows, folder / "in.parquet")
    command = ("run", "in.parquet", "out", "--model", model_folder)
    failed = called(*command, folder=folder)
    assert failed.returncode == 1
    assert "1 of 10 rows were rejected" in failed.stderr.replace("\n", " ")
    last = failed.stderr.splitlines()[-1]
    accept = shlex.split(last.partition("accept them with: rankmill ")[2])
    assert accept == ["resume", str(folder / "out"), "--max-reject-rate", "0.1"]
    assert not (folder / "out" / "_SUCCESS").exists()
    assert len(read_output(folder / "out")) == 9
    accepted = called(*accept, folder=folder)
    assert accepted.returncode == 0, accepted.stderr
    assert "9 of 10 rows in 2 query groups" in accepted.stdout
    assert "9 rows in 1 part\n" in accepted.stdout
    passed = called(*command, "--max-reject-rate", 0.2, "--overwrite", "--json", folder=folder)
    assert passed.returncode == 0, passed.stderr
    assert json.loads(passed.stdout)["state"] == "succeeded with rejects"


def test_an_interrupted_run_stops_its_processes_and_continues_when_run_again(folder: Path) -> None:
    rows = pairs(120, 25)
    write(rows, folder / "in.parquet")
    arguments = ["run", "in.parquet", "out", "--model", "null:400", "--shard-pairs", "100"]
    hearing = ["env", "--default-signal=INT"]  # what a shell starts in the background ignores it
    command = [*hearing, sys.executable, "-m", "producer.cli", *arguments]
    marked = {**environment(), "RANKMILL_TEST_MARK": str(folder)}
    process = subprocess.Popen(command, cwd=folder, env=marked, stderr=subprocess.PIPE)
    wait_for(lambda: len(Output(str(folder / "out")).reported_shards()) >= 2)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert b"run the same command again" in error
    wait_for(lambda: left_over(folder) == [], 10)
    finished = Output(str(folder / "out")).reported_shards()
    assert 2 <= len(finished) < 30
    kept = part_bytes(folder / "out")
    done = called(*arguments, folder=folder)
    assert done.returncode == 0, done.stderr
    assert len(read_output(folder / "out")) == len(rows)
    now = part_bytes(folder / "out")
    assert {name: now[name] for name in kept} == kept


def test_the_folder_of_a_killed_run_is_removed_by_the_next(folder: Path) -> None:
    write(pairs(60, 25), folder / "in.parquet")
    arguments = ["run", "in.parquet", "out", "--model", "null:400", "--shard-pairs", "100"]
    command = [sys.executable, "-m", "producer.cli", *arguments]
    process = subprocess.Popen(command, cwd=folder, env=environment(), stderr=subprocess.DEVNULL)
    wait_for(lambda: len(Output(str(folder / "out")).reported_shards()) >= 1)
    owned = {}
    for path in Path("/tmp").glob("rankmill-*/owner.json"):
        with suppress(OSError, ValueError):  # a run of another test begins or ends
            owned[json.loads(path.read_text())["pid"]] = path.parent
    left = owned[process.pid]
    process.kill()
    process.wait()
    done = called(*arguments, folder=folder)
    assert done.returncode == 0, done.stderr
    assert not left.exists()


def bad_input(folder: Path, kind: str) -> Path:
    path = folder / "in.parquet"
    write(pairs(2, 2), path)
    if kind == "missing":
        path.unlink()
    elif kind == "text":
        path.write_text("query,document\n")
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-20])
    return path


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("missing", [], "in.parquet: no such file"),
        ("text", [], "not a Parquet file"),
        ("truncated", [], "truncated or damaged Parquet"),
        ("good", ["--query-col", "q"], "the columns there are: query_id, doc_id, query, document"),
        ("good", ["--top-k", "0"], "--top-k 0"),
        ("good", ["--precision", "fp7"], "fp7"),
        ("good", ["--model", "/nowhere"], "no such model folder"),
        ("good", ["--model", "owner/model"], "hub is out of reach"),
        ("good", ["--output", "x"], "No such option"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    folder: Path, model_folder: Path, kind: str, options: list[str], message: str
) -> None:
    bad_input(folder, kind)
    before = everything_under(folder)
    arguments = ["run", "in.parquet", "out", "--model", str(model_folder), *options]
    done = called(*arguments, folder=folder)
    assert done.returncode == 2, done.stderr
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert everything_under(folder) == before


def test_input_is_never_taken_for_an_old_result(folder: Path, model_folder: Path) -> None:
    source = write(pairs(1, 2), folder / "parts" / "part-00000.parquet")
    content = source.read_bytes()
    for output in ("parts", "."):
        arguments = ("run", source, output, "--model", model_folder, "--overwrite")
        done = called(*arguments, folder=folder)
        assert done.returncode == 2 and "which the job writes to" in done.stderr
    other = write(pairs(1, 2), folder / "in.parquet")
    done = called("run", other, "parts", "--model", model_folder, "--overwrite", folder=folder)
    assert done.returncode == 2 and "holds other files (part-00000.parquet)" in done.stderr
    assert source.read_bytes() == content


def test_a_wrong_setting_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKMILL_BROKER_URL", "amqp://host")
    done = called("jobs", folder=folder)
    assert done.returncode == 2 and "RANKMILL_BROKER_URL" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_with_foreign_files_is_not_touched(folder: Path, model_folder: Path) -> None:
    write(pairs(1, 2), folder / "in.parquet")
    (folder / "out").mkdir()
    (folder / "out" / "thesis.txt").touch()
    arguments = ("run", "in.parquet", "out", "--model", model_folder, "--overwrite")
    done = called(*arguments, folder=folder)
    assert done.returncode == 2 and "thesis.txt" in done.stderr
    assert everything_under(folder / "out") == ["thesis.txt"]
