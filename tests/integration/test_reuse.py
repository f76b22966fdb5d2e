"""Whole jobs reuse scores: the command's output, other layouts, S3, a killed preparer."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from producer.jobs.submit import submit
from rankmill import storage
from rankmill.ledger.claims import PREPARATION
from rankmill.ledger.jobs import Ledger
from tests.conftest import StartWorker
from tests.support.command import Run, called
from tests.support.inputs import pairs, part_bytes, read_output, wait_for, write


def test_the_command_says_what_was_reused_or_why_nothing(
    tmp_path: Path, model_folder: Path, submit_and_watch: Run
) -> None:
    rows = pairs(6, 7)
    source = write(rows, tmp_path / "in.parquet")
    options = ("--model", model_folder, "--for-reuse")
    done = submit_and_watch(source, tmp_path / "one", *options)
    assert done.returncode == 0 and "reused" not in done.stdout, done.stderr

    rows[3]["document"] = "another text"
    changed = write(rows[::-1], tmp_path / "changed.parquet")
    again = ("--reuse-from", tmp_path / "one")
    done = submit_and_watch(changed, tmp_path / "two", *options, *again)
    assert done.returncode == 0, done.stderr
    assert f"reused     41 scores (97.6%) from {tmp_path}/one\n" in done.stdout

    done = submit_and_watch(changed, tmp_path / "three", *options, *again, "--max-length", 16)
    assert done.returncode == 0, done.stderr
    assert "reused     no scores; the earlier job differs in max_length (" in done.stdout
    status = json.loads(called("status", tmp_path / "three", "--json").stdout)
    assert status["n_reused"] == 0 and status["no_reuse"].startswith("the earlier job differs in")
    assert json.loads(called("status", tmp_path / "two", "--json").stdout)["n_reused"] == 41

    done = called("run", changed, tmp_path / "four", *options, "--reuse-from", tmp_path / "none")
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert f"--reuse-from {tmp_path}/none: no job was submitted" in done.stderr
    assert not (tmp_path / "four").exists()


def test_lists_a_run_and_scattered_rows_reuse_each_other_s_scores(
    tmp_path: Path, model_folder: Path, start_worker: StartWorker
) -> None:
    start_worker()
    rows = pairs(8, 6)
    options = {"model_id": str(model_folder), "for_reuse": True, "shard_pairs": 20}
    scattered = write([rows[n * 5 % 48] for n in range(48)], tmp_path / "scattered.parquet")
    submit(scattered, tmp_path / "one", cluster=True, top_k=2, **options).wait(timeout_s=60)

    lists: list[dict[str, Any]] = [
        {
            "query_id": rows[6 * q]["query_id"],
            "query": rows[6 * q]["query"],
            "docs": [{"id": r["doc_id"], "text": r["document"]} for r in rows[6 * q : 6 * q + 6]],
        }
        for q in range(8)
    ]
    lists[2]["docs"][0]["text"] = "new"
    pq.write_table(pa.Table.from_pylist(lists), tmp_path / "lists.parquet")
    options["layout"] = "lists"
    full = submit(tmp_path / "lists.parquet", tmp_path / "full", **options)
    full.wait(timeout_s=60)
    options["reuse_from"] = str(tmp_path / "one")
    job = submit(tmp_path / "lists.parquet", tmp_path / "two", **options)
    assert job.wait(timeout_s=60).n_reused == 47
    assert part_bytes(tmp_path / "two") == part_bytes(tmp_path / "full")

    run = {name: [row[name] for row in rows] for name in ("query_id", "doc_id")}
    for name, text, key in (("queries", "query", "query_id"), ("corpus", "document", "doc_id")):
        texts = {row[key]: row[text] for row in rows}
        table = pa.table({key: list(texts), "text": list(texts.values())})
        pq.write_table(table, tmp_path / f"{name}.parquet")
        options[name] = str(tmp_path / f"{name}.parquet")
    pq.write_table(pa.table(run), tmp_path / "run.parquet")
    options |= {"layout": "run", "reuse_from": str(tmp_path / "two")}
    job = submit(tmp_path / "run.parquet", tmp_path / "three", **options)
    assert job.wait(timeout_s=60).n_reused == 47
    assert len(read_output(tmp_path / "three")) == 48


def test_scores_on_s3_are_reused(
    s3: str, tmp_path: Path, model_folder: Path, start_worker: StartWorker
) -> None:
    start_worker()
    rows = pairs(12, 7)
    source = write(rows, tmp_path / "in.parquet", row_group_size=9)
    storage.write_bytes(f"{s3}/in.parquet", source.read_bytes())
    options = {"model_id": str(model_folder), "for_reuse": True, "shard_pairs": 14}
    first = submit(f"{s3}/in.parquet", f"{s3}/runs/one", **options)
    first.wait(timeout_s=60)
    pointer = {"output_uri": first.output.uri}
    storage.write_bytes(f"{s3}/runs/latest.json", json.dumps(pointer).encode())
    second = submit(f"{s3}/in.parquet", f"{s3}/runs/two", reuse_from="latest", **options)
    assert second.wait(timeout_s=60).n_reused == 84
    for name in sorted(first.output.part_names()):
        parts = [storage.read_bytes(f"{each.output.uri}/{name}") for each in (first, second)]
        assert parts[0] == parts[1]


def test_a_worker_killed_while_it_looks_up_costs_nothing(
    tmp_path: Path, start_worker: StartWorker, ledger: Ledger
) -> None:
    n_rows = 400_000
    numbers = np.arange(n_rows)
    table = pa.table(
        {
            "query_id": numbers // 100,
            "doc_id": numbers,
            "query": (numbers // 100).astype(str),
            "document": numbers.astype(str),
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    first = start_worker("first")
    options = {"model_id": "null", "for_reuse": True}
    submit(tmp_path / "in.parquet", tmp_path / "one", **options).wait(timeout_s=90)
    options["reuse_from"] = str(tmp_path / "one")
    job = submit(tmp_path / "in.parquet", tmp_path / "two", **options)

    def has_begun() -> bool:
        assert job.status().state == "preparing"
        return ledger.claims.holder(job.job_id, PREPARATION) is not None

    wait_for(has_begun)
    os.killpg(first.pid, 9)
    start_worker("second")
    status = job.wait(timeout_s=90)
    assert (status.state, status.n_reused) == ("succeeded", n_rows)
    assert part_bytes(tmp_path / "two") == part_bytes(tmp_path / "one")
