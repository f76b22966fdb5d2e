"""Names of columns that readers confuse: distinct in flags, never written together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from producer.inputs.columns import resolve_columns
from rankmill.contract.job import JobSpec
from rankmill.errors import InputError
from tests.support.inputs import pairs, write
from tests.support.shards import job_over, run_all
from worker.shard.part import part_schema

CLASHES = [
    ("Id", "id"),
    ("caf\u00e9", "cafe\u0301"),
    ("\u00c4", "\u00e4"),
    ("n", "n "),
    ("input_score", "Score"),
    ("Input_Rank", "rank"),
]


def table_with(*names: str) -> pa.Table:
    table = pa.Table.from_pylist(pairs(2, 3))
    for number, name in enumerate(names):
        table = table.append_column(name, pa.array([number] * 6))
    return table


@pytest.mark.parametrize("name", ["Score", "RANK", "Logit", "n_Tokens", "truncated ", "score"])
def test_an_input_column_called_like_a_result_but_for_case_gets_a_prefix(
    tmp_path: Path, name: str
) -> None:
    pq.write_table(table_with(name), tmp_path / "in.parquet")
    run_all(job_over(tmp_path / "in.parquet", tmp_path))
    parts = str(tmp_path / "out" / "*.parquet")
    found = duckdb.sql(f"select count(*) from '{parts}' where rank = 1 and score is not null")
    assert found.fetchall() == [(2,)]
    assert f"input_{name}" in pq.read_schema(tmp_path / "out/part-00000.parquet").names


@pytest.mark.parametrize("names", CLASHES)
def test_names_that_readers_confuse_are_not_written_together(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    for order in (names, names[::-1]):
        pq.write_table(table_with(*order), tmp_path / "in.parquet")
        with pytest.raises(InputError, match="take for one; leave one out with --keep-cols"):
            job_over(tmp_path / "in.parquet", tmp_path)
        for kept in order:
            job = job_over(tmp_path / "in.parquet", tmp_path, keep_cols=("doc_id", kept))
            assert len(part_schema(job).names) == 7


def test_flags_compare_names_exactly(tmp_path: Path) -> None:
    table = table_with("n").rename_columns(["QUERY_ID", "doc_id", "Query", "document", "n"])
    table = table.append_column("query_id", pa.array(list("ababab")))
    pq.write_table(table, tmp_path / "in.parquet")
    with pytest.raises(InputError, match=r"column 'query' is missing; .*Query"):
        job_over(tmp_path / "in.parquet", tmp_path)
    options: dict[str, Any] = {"query_col": "Query", "query_id_col": "QUERY_ID"}
    with pytest.raises(InputError, match="'QUERY_ID' and 'query_id' would be written"):
        job_over(tmp_path / "in.parquet", tmp_path, **options)
    run_all(job_over(tmp_path / "in.parquet", tmp_path, keep_cols=("QUERY_ID",), **options))
    found = pq.read_table(tmp_path / "out")
    assert found["QUERY_ID"].to_pylist() == ["q0000"] * 3 + ["q0001"] * 3


def test_folders_and_files_with_one_column_in_two_cases(tmp_path: Path) -> None:
    rows = [{**row, "lang": "de"} for row in pairs(1, 2)]
    write(rows, tmp_path / "in" / "Lang=fr" / "0.parquet")
    with pytest.raises(InputError, match="columns 'lang' and 'Lang' would be written"):
        job_over(tmp_path / "in", tmp_path)
    run_all(job_over(tmp_path / "in", tmp_path, keep_cols=("doc_id", "Lang")))
    assert pq.read_table(tmp_path / "out")["Lang"].to_pylist() == ["fr", "fr"]


def test_rejects_have_all_columns_under_names_that_every_reader_distinguishes(
    tmp_path: Path,
) -> None:
    table = table_with("File", "Id", "id", "input_ID")
    nulls = pa.array([None, *table["document"].to_pylist()[1:]], pa.string())
    at = table.column_names.index("document")
    pq.write_table(table.set_column(at, "document", nulls), tmp_path / "in.parquet")
    job = job_over(tmp_path / "in.parquet", tmp_path, keep_cols=("doc_id",), max_reject_rate=1)
    run_all(job)
    rejected = job.output.rejected_uri(0)
    found = duckdb.read_parquet(rejected)
    row = dict(zip(found.columns, found.fetchall()[0], strict=True))
    assert row["reject_file"].endswith("in.parquet") and row["row"] == 0
    assert (row["File"], row["Id"], row["input_input_id"], row["input_ID"]) == (0, 1, 2, 3)
    assert pq.read_schema(rejected).names == found.columns  # no column had to be renamed


@pytest.mark.parametrize("name", ["Candidates", "CANDIDATES "])
def test_a_column_that_readers_confuse_with_the_candidates_is_refused(name: str) -> None:
    schema = pa.schema([("query", pa.string()), ("document", pa.string()), (name, pa.int8())])
    spec = JobSpec(input_uri="in", output_uri="out", layout="lists")
    with pytest.raises(InputError, match=f"column '{name}' would be written twice"):
        resolve_columns(spec, schema)
