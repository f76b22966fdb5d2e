"""Lists, runs, JSONL and scattered rows through the whole command: prepared, scored, written."""

from __future__ import annotations

import gzip
import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from producer.jobs.submit import submit
from tests.conftest import StartWorker
from tests.support.command import Run, called
from tests.support.inputs import (
    everything_under,
    pairs,
    part_bytes,
    read_output,
    read_rejected,
    write,
)
from tests.support.inputs import wait_for as wait


def scores(rows: list[dict[str, Any]]) -> dict[tuple[str, str], tuple[float, int]]:
    return {(row["query_id"], row["doc_id"]): (row["logit"], row["rank"]) for row in rows}


@pytest.fixture(scope="module")
def as_pairs(
    tmp_path_factory: pytest.TempPathFactory, model_folder: Path, submit_and_watch: Run
) -> dict[tuple[str, str], tuple[float, int]]:
    """Return the scores of clustered pairs, which all other layouts of the pairs must equal."""
    folder = tmp_path_factory.mktemp("pairs")
    write(pairs(6, 7), folder / "in.parquet")
    done = submit_and_watch(folder / "in.parquet", folder / "out", "--model", model_folder)
    assert done.returncode == 0, done.stderr
    return scores(read_output(folder / "out"))


def test_scattered_rows_are_brought_together(
    tmp_path: Path, model_folder: Path, as_pairs: object, submit_and_watch: Run
) -> None:
    rows = pairs(6, 7)
    source = write([rows[n * 5 % len(rows)] for n in range(len(rows))], tmp_path / "in.parquet")
    options = ("--model", model_folder, "--shard-pairs", 10)
    without = called("run", source, tmp_path / "without", *options)
    assert without.returncode == 2 and "--cluster" in without.stderr
    done = submit_and_watch(source, tmp_path / "out", *options, "--cluster")
    assert done.returncode == 0, done.stderr
    assert scores(read_output(tmp_path / "out")) == as_pairs


def test_an_existing_path_with_commas_is_taken_literally(
    tmp_path: Path, submit_and_watch: Run
) -> None:
    write(pairs(6, 7), tmp_path / "in,1" / "a,b.parquet")
    options = ("--model", "null", "--cluster", "--for-reuse")
    done = submit_and_watch(tmp_path / "in,1", tmp_path / "out,1", *options)
    assert done.returncode == 0, done.stderr
    again = ("--reuse-from", tmp_path / "out,1")
    done = submit_and_watch(tmp_path / "in,1", tmp_path / "out,2", *options, *again)
    assert done.returncode == 0, done.stderr
    assert read_output(tmp_path / "out,2") == read_output(tmp_path / "out,1")


def test_json_lines_are_read(
    tmp_path: Path, model_folder: Path, as_pairs: object, submit_and_watch: Run
) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in pairs(6, 7))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    done = submit_and_watch(tmp_path / "in", tmp_path / "out", "--model", model_folder)
    assert done.returncode == 0, done.stderr
    assert scores(read_output(tmp_path / "out")) == as_pairs


@pytest.mark.parametrize("explode", [False, True])
def test_lists_come_out_as_lists_or_exploded(
    tmp_path: Path, model_folder: Path, as_pairs: object, explode: bool, submit_and_watch: Run
) -> None:
    by_query: dict[str, dict[str, Any]] = {}
    for row in pairs(6, 7):
        query = by_query.setdefault(
            row["query_id"], {"query_id": row["query_id"], "query": row["query"], "docs": []}
        )
        query["docs"].append(
            {"id": row["doc_id"], "text": row["document"], "at": len(query["docs"])}
        )
    by_query["empty"] = {"query_id": "empty", "query": "nothing found", "docs": []}
    source = tmp_path / "in.parquet"
    pq.write_table(pa.Table.from_pylist(list(by_query.values())), source)
    options = ["--layout", "lists", "--model", model_folder, "--max-reject-rate", 0.1]
    done = submit_and_watch(source, tmp_path / "out", *options, *["--explode"] * explode)
    assert done.returncode == 0, done.stderr
    rows = read_output(tmp_path / "out")
    if not explode:
        assert [row["query_id"] for row in rows] == sorted({q for q in by_query} - {"empty"})
        assert list(rows[0]) == ["query_id", "candidates"]
        rows = [{**each, "query_id": row["query_id"]} for row in rows for each in row["candidates"]]
    assert {row["at"] for row in rows} == set(range(7))
    assert scores(rows) == as_pairs
    [rejected] = read_rejected(tmp_path / "out")
    assert (rejected["file"], rejected["row"]) == (str(source), 6)
    assert rejected["reason"] == "no candidates" and rejected["query_id"] == "empty"


def write_run(folder: Path) -> tuple[Path, tuple[object, ...]]:
    rows = pairs(6, 7)
    lines = [
        f"{row['query_id']} Q0 {row['doc_id']} {n} {100 - n} bm25" for n, row in enumerate(rows)
    ]
    run = folder / "run.trec"
    run.write_text("\n".join([*lines, "q0001 Q0 gone 99 0.5 bm25"]) + "\n")
    (folder / "queries.tsv").write_text(
        "".join({f"{row['query_id']}\t{row['query']}\n": None for row in rows})
    )
    with (folder / "corpus.jsonl").open("w") as corpus:
        for row in rows:
            title, _, text = row["document"].partition(" ")
            corpus.write(json.dumps({"_id": row["doc_id"], "title": title, "text": text}) + "\n")
    texts = ("--queries", folder / "queries.tsv", "--corpus", folder / "corpus.jsonl")
    return run, ("--layout", "run", *texts)


def test_a_run_is_reranked_into_a_run(
    tmp_path: Path, model_folder: Path, as_pairs: object, submit_and_watch: Run
) -> None:
    run, layout = write_run(tmp_path)
    options = ("--trec-run", "--model", model_folder, "--max-reject-rate", 0.1, "--shard-pairs", 9)
    done = submit_and_watch(run, tmp_path / "out", *layout, *options)
    assert done.returncode == 0, done.stderr
    rows = read_output(tmp_path / "out")
    assert scores(rows) == as_pairs
    assert {row["input_score"] for row in rows} == set(range(59, 101))
    [rejected] = read_rejected(tmp_path / "out")
    assert rejected["reason"] == "document is not in --corpus"
    assert (rejected["file"], rejected["row"], rejected["doc_id"]) == (str(run), 42, "gone")
    trec = (tmp_path / "_rankmill/out/run.trec").read_text().splitlines()
    by_query = defaultdict(list)
    for line in trec:
        by_query[line.split()[0]].append(float(line.split()[4]))
    assert len(trec) == 42
    assert all(each == sorted(each, reverse=True) for each in by_query.values())


def test_bad_input_is_one_line_and_nothing_is_written(tmp_path: Path, model_folder: Path) -> None:
    run, layout = write_run(tmp_path)
    before = everything_under(tmp_path)
    for options, message in (
        (("--layout", "run"), "give --queries"),
        ((), "looks like run"),
        (("--layout", "lists"), "looks like run"),
    ):
        done = called("run", run, tmp_path / "out", "--model", model_folder, *options)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert everything_under(tmp_path) == before
    lists = tmp_path / "lists.parquet"
    pq.write_table(pa.table({"query": ["a"], "document": [["b", "c"]]}), lists)
    done = called("run", lists, tmp_path / "out", "--model", model_folder)
    assert done.returncode == 2 and "looks like lists" in done.stderr
    run.write_text(run.read_text() + "q0000 Q0 d0-0 1 1 bm25\n")
    done = called("run", run, tmp_path / "out", "--model", model_folder, *layout)
    assert done.returncode == 2 and "twice" in done.stderr.strip().splitlines()[-1]
    assert not part_bytes(tmp_path / "out")


def test_a_worker_killed_while_it_prepares_is_replaced(
    tmp_path: Path, model_folder: Path, start_worker: StartWorker
) -> None:
    n_rows = 400_000
    ids = pa.array([f"q{n % 1000}" for n in range(n_rows)])
    texts = pa.repeat("a text that is some words long", n_rows)
    table = {"query_id": ids, "doc_id": pa.array(range(n_rows)), "query": texts, "document": texts}
    pq.write_table(pa.table(table), tmp_path / "in.parquet")
    first = start_worker("first")
    job = submit(tmp_path / "in.parquet", tmp_path / "out", model_id="null", cluster=True)

    def has_begun() -> bool:
        status = job.status()
        # A worker that has just started is not visible at once.
        assert status.state in ("preparing", "waiting for a worker")
        return status.n_pairs_done > 0

    wait(has_begun)
    os.killpg(first.pid, 9)
    start_worker("second")
    status = job.wait(timeout_s=90)
    assert (status.state, status.n_pairs_done) == ("succeeded", n_rows)
    assert len(read_output(tmp_path / "out")) == n_rows


def test_a_prepared_job_submitted_again_reads_the_input_again(
    tmp_path: Path, start_worker: StartWorker
) -> None:
    source = write(pairs(4, 5), tmp_path / "in.parquet")
    start_worker()
    for overwrite in (False, True):
        job = submit(source, tmp_path / "out", model_id="null", cluster=True, overwrite=overwrite)
        assert job.wait(timeout_s=60).state == "succeeded"
    assert len(read_output(tmp_path / "out")) == 20


def test_a_query_in_two_rows_of_lists_is_found_in_any_shards(tmp_path: Path) -> None:
    ids = ["q0", "q1", "q2", "q0"]
    table = pa.table({"query_id": ids, "query": ids, "document": [list("abcdef")] * 4})
    pq.write_table(table, tmp_path / "in.parquet")
    layout = ("--layout", "lists", "--model", "null", "--shard-pairs", 6)
    done = called("run", tmp_path / "in.parquet", tmp_path / "out", *layout)
    assert done.returncode == 2
    assert "query_id 'q0' has rows in shards 0 and 3" in done.stderr
    done = called("run", tmp_path / "in.parquet", tmp_path / "2", *layout, "--cluster")
    assert done.returncode == 0, done.stderr
