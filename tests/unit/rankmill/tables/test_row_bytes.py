"""Columns of more than 2 GiB, which Arrow cannot hold in one piece, pass through a shard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from producer.jobs.check import plan_job
from rankmill.contract.job import JobSpec
from rankmill.tables.row_bytes import decoded_bytes, pieces, row_bytes, stops
from worker import models
from worker.shard.run import run_shard
from worker.shard.score import ShardWork

pytestmark = pytest.mark.slow

N_ROWS, TEXT_BYTES = 33_000, 70_000


def test_one_query_with_more_than_arrow_counts_in_one_column(tmp_path: Path) -> None:
    """Texts that take 2.3 GB when decoded and nearly nothing in the file, which hides it."""
    texts = pa.array([f"{n} ".ljust(TEXT_BYTES, "x") for n in range(5)])
    numbers = np.arange(N_ROWS)
    coded = pa.DictionaryArray.from_arrays(pa.array(numbers % 5, pa.int32()), texts)
    query = pa.repeat(pa.scalar("query"), N_ROWS)
    table = pa.table({"query": query, "document": coded, "n": numbers})
    pq.write_table(table, tmp_path / "in.parquet", store_schema=False)
    values = {"input_uri": str(tmp_path / "in.parquet"), "output_uri": str(tmp_path / "out")}
    job = plan_job(JobSpec(model_id="null", shard_pairs=N_ROWS, **values))
    work = ShardWork(models.load(job.spec), "test", 4096)
    report = run_shard(job, job.shard(0), work)
    assert (report.n_scored, report.n_rejected) == (N_ROWS, 0)
    part = ds.dataset(tmp_path / "out")
    assert part.schema.field("document").type == pa.string()
    found = part.to_table(columns=["n"])["n"].to_numpy()
    assert np.array_equal(np.sort(found), numbers)


def test_the_bytes_of_each_row_count_nested_and_coded_texts() -> None:
    coded = pa.array(["ab", None, "abcd"]).dictionary_encode()
    lists = pa.array([["a", "bcd"], [], None])
    structs = pa.array([{"t": "xyz"}, None, {"t": ""}])
    table = pa.table({"coded": coded, "lists": lists, "structs": structs}).slice(1)
    assert row_bytes(table).tolist() == [0 + 8 + 0, 4 + 8 + 0]
    assert decoded_bytes(pa.table({"coded": coded})) == 6


def test_pieces_hold_so_many_bytes_or_one_row() -> None:
    table = pa.table({"t": ["a" * n for n in (3, 3, 9, 1, 1, 1, 1)]})
    found = [[len(text) for text in each["t"].to_pylist()] for each in pieces(table, 6)]
    assert found == [[3, 3], [9], [1, 1, 1, 1]]
    assert list(stops(np.ones(5, np.int64), 2)) == [2, 4, 5]
