"""Awkward inputs of real jobs: damaged, scattered, duplicated, partitioned, huge."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankmill.contract.plan import Columns, Plan, encode_schema
from rankmill.errors import InputError
from rankmill.output.output import Job
from rankmill.settings import CHECKOUT
from tests.support.inputs import pairs, read_output, read_rejected, write
from tests.support.odd_columns import ODD_COLUMNS, is_carried
from tests.support.shards import job_over, run_all
from worker.finalize import make_manifest
from worker.shard import spill
from worker.shard.group_checks import check_queries
from worker.shard.part import part_schema
from worker.trec import write_trec_run

pytestmark = pytest.mark.slow


def damaged_file(folder: Path) -> Path:
    """Write thirty rows in row groups of ten, the second one with damaged texts."""
    path = write(pairs(6, 5), folder / "in.parquet", row_group_size=10, compression="none")
    group = pq.ParquetFile(path).metadata.row_group(1)
    [column] = [c for c in map(group.column, range(4)) if c.path_in_schema == "document"]
    content = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    content[start : start + 40] = b"\xff" * 40
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return path


@pytest.mark.parametrize("shard_pairs", [4, 7, 100])
def test_a_damaged_row_group_can_be_rejected(tmp_path: Path, shard_pairs: int) -> None:
    job = job_over(damaged_file(tmp_path), tmp_path, damaged="reject", shard_pairs=shard_pairs)
    run_all(job)
    lost = read_rejected(tmp_path / "out")
    assert [row["row"] for row in lost] == list(range(10, 20))
    assert {row["reason"] for row in lost} == {"row group 1 is damaged"}
    kept = {row["doc_id"] for row in read_output(tmp_path / "out")}
    wanted = [row["doc_id"] for row in pairs(6, 5)]
    assert kept == {*wanted[:10], *wanted[20:]}
    assert make_manifest(job, list(job.output.reports(job.job_id))).n_rows == 30


def test_a_damaged_row_group_fails_the_job_otherwise(tmp_path: Path) -> None:
    job = job_over(damaged_file(tmp_path), tmp_path)
    with pytest.raises(InputError, match=r"in\.parquet: row group 1 cannot be read.*--damaged"):
        run_all(job)


def test_a_query_in_two_shards_is_named(tmp_path: Path) -> None:
    rows = pairs(6, 5)
    scattered = [*rows[1:], rows[0]]
    job = job_over(write(scattered, tmp_path / "in.parquet"), tmp_path, shard_pairs=10)
    run_all(job)
    with pytest.raises(InputError, match=r"query_id 'q0000' has rows in shards 0 and 2.*--cluster"):
        check_queries(job)
    whole = job_over(write(rows, tmp_path / "2.parquet"), tmp_path / "2", shard_pairs=10)
    run_all(whole)
    check_queries(whole)


def test_a_document_that_a_query_names_twice(tmp_path: Path) -> None:
    rows = pairs(3, 5)
    rows[7]["doc_id"] = rows[9]["doc_id"]
    source = write(rows, tmp_path / "in.parquet")
    twice = "query_id 'q0001' has doc_id 'd1-4' twice or more, in rows 7 and 9"
    with pytest.raises(InputError, match=twice):
        run_all(job_over(source, tmp_path))
    run_all(job_over(source, tmp_path / "kept", duplicates="keep"))
    assert len(read_output(tmp_path / "kept" / "out")) == 15


def test_the_same_document_under_two_queries_is_fine(tmp_path: Path) -> None:
    rows = [{**row, "doc_id": f"d{n % 5}"} for n, row in enumerate(pairs(3, 5))]
    run_all(job_over(write(rows, tmp_path / "in.parquet"), tmp_path))


def test_folders_with_hive_names_give_columns(tmp_path: Path) -> None:
    rows = pairs(4, 5)
    for n, part in enumerate((rows[:10], rows[10:])):
        write(part, tmp_path / "in" / f"day={n}" / "lang=d%20e" / "0.parquet")
    run_all(job_over(tmp_path / "in", tmp_path, shard_pairs=3))
    found = {row["doc_id"]: (row["day"], row["lang"]) for row in read_output(tmp_path / "out")}
    assert found == {row["doc_id"]: (n // 10, "d e") for n, row in enumerate(rows)}


def test_a_column_from_folders_may_be_null(tmp_path: Path) -> None:
    """Hive writes a null so for any type; the other values are still numbers."""
    rows, null = pairs(4, 5), "__HIVE_DEFAULT_PARTITION__"
    for part, day, lang in ((rows[:10], null, null), (rows[10:], "7", null)):
        write(part, tmp_path / "in" / f"day={day}" / f"lang={lang}" / "0.parquet")
    run_all(job_over(tmp_path / "in", tmp_path))
    found = {row["doc_id"]: (row["day"], row["lang"]) for row in read_output(tmp_path / "out")}
    assert found == {row["doc_id"]: (7 if n >= 10 else None, None) for n, row in enumerate(rows)}


def test_folders_that_disagree_in_their_columns_are_named(tmp_path: Path) -> None:
    write(pairs(1, 1), tmp_path / "in" / "day=1" / "0.parquet")
    write(pairs(1, 1), tmp_path / "in" / "0.parquet")
    with pytest.raises(InputError, match="day="):
        job_over(tmp_path / "in", tmp_path)


@pytest.mark.parametrize(
    "kind",
    [
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.dictionary(pa.int8(), pa.large_string()),
    ],
)
def test_texts_and_ids_of_every_string_type(tmp_path: Path, kind: pa.DataType) -> None:
    rows = [{**row, "n": None if n % 3 else n} for n, row in enumerate(pairs(4, 5))]
    table = pa.Table.from_pylist(rows)
    fields = [
        field.with_type(kind) if field.type == pa.string() else field for field in table.schema
    ]
    pq.write_table(table.cast(pa.schema(fields)), tmp_path / "in.parquet")
    job = job_over(tmp_path / "in.parquet", tmp_path, shard_pairs=7)
    run_all(job, window_pairs=3)
    found = {row["doc_id"]: (row["query_id"], row["n"]) for row in read_output(tmp_path / "out")}
    assert found == {row["doc_id"]: (row["query_id"], row["n"]) for row in rows}
    parts = sorted((tmp_path / "out").glob("*.parquet"))
    assert {pq.read_schema(part) for part in parts} == {part_schema(job)}


@pytest.mark.parametrize("name", ODD_COLUMNS)
def test_columns_of_any_type_are_carried_through(tmp_path: Path, name: str) -> None:
    odd = pa.concat_arrays([ODD_COLUMNS[name]] * 3)
    table = pa.Table.from_pylist(pairs(2, 6)).append_column("odd", odd)
    pq.write_table(table.append_column("n", pa.array(range(12))), tmp_path / "in.parquet", 5)
    job = job_over(tmp_path / "in.parquet", tmp_path, shard_pairs=6, keep_cols=("n", "odd"))
    run_all(job, window_pairs=4)
    found = pq.read_table(tmp_path / "out")
    stored = pq.read_table(tmp_path / "in.parquet")["odd"]
    order = found["n"].to_pylist()
    assert sorted(order) == list(range(12)) != order
    assert is_carried(found["odd"], stored.slice(0, 4), name, [n % 4 for n in order])


def test_uuids_are_ids(tmp_path: Path) -> None:
    rows = pairs(4, 5)
    table = pa.Table.from_pylist(rows)
    for name in ("query_id", "doc_id"):
        ids = pa.array([value.rjust(16, "0").encode() for value in table[name].to_pylist()])
        uuids = pa.ExtensionArray.from_storage(pa.uuid(), ids.cast(pa.binary(16)))
        table = table.set_column(table.column_names.index(name), name, uuids)
    pq.write_table(table, tmp_path / "in.parquet")
    job = job_over(tmp_path / "in.parquet", tmp_path, shard_pairs=7)
    run_all(job, window_pairs=3)
    check_queries(job)
    found = pq.read_table(tmp_path / "out").select(["query_id", "doc_id"])
    stored = pq.read_table(tmp_path / "in.parquet").select(["query_id", "doc_id"])
    assert set(map(str, found.to_pylist())) == set(map(str, stored.cast(found.schema).to_pylist()))
    assert [row["rank"] for row in read_output(tmp_path / "out")] == [1, 2, 3, 4, 5] * 4
    pq.write_table(pa.concat_tables([table, table.slice(19)]), tmp_path / "in.parquet")
    with pytest.raises(InputError, match=r"query_id b.* has doc_id b.* twice"):
        run_all(job_over(tmp_path / "in.parquet", tmp_path / "twice"))


@pytest.mark.parametrize("kind", [pa.float64(), pa.dictionary(pa.int8(), pa.float32())])
@pytest.mark.parametrize(("shard_pairs", "window_pairs"), [(5, 8), (7, 3), (100, 4), (100, 64)])
@pytest.mark.parametrize("is_old", [False, True])
def test_a_query_id_that_is_nan_is_null(
    tmp_path: Path, kind: pa.DataType, shard_pairs: int, window_pairs: int, is_old: bool
) -> None:
    """A job that was planned with ids as floats continues with them."""
    ids = [1.0] * 3 + [float("nan")] * 9 + [1.0, None, 2.0, 2.0, float("nan"), 2.0, 3.0, 3.0]
    table = pa.Table.from_pylist(pairs(4, 5))
    at = table.column_names.index("query_id")
    pq.write_table(table.set_column(at, "query_id", pa.array(ids, kind)), tmp_path / "in.parquet")
    job = job_over(tmp_path / "in.parquet", tmp_path, shard_pairs=shard_pairs)
    if is_old:
        schema = pq.read_schema(tmp_path / "in.parquet")
        plan = job.plan.model_copy(update={"arrow_schema": encode_schema(schema)})
        job = Job(job.record, Plan(**plan.model_dump()))
    run_all(job, window_pairs)
    assert [row["rank"] for row in read_output(tmp_path / "out")] == [1, 2, 3, 4, 1, 2, 3, 1, 2]
    rejected = {row["row"]: row["reason"] for row in read_rejected(tmp_path / "out")}
    nan = "query_id is not a number" if is_old else "query_id is null"
    assert rejected == {**dict.fromkeys([*range(3, 12), 16], nan), 13: "query_id is null"}
    assert make_manifest(job, list(job.output.reports(job.job_id))).n_rows == 20


def test_lists_are_folded_best_first(tmp_path: Path) -> None:
    rows = [{**row, "extra": {"n": n}} for n, row in enumerate(pairs(3, 4))]
    job = job_over(write(rows, tmp_path / "in.parquet"), tmp_path, shard_pairs=5, top_k=3)
    columns = job.plan.columns.model_copy(update={"candidates": ("doc_id", "extra")})
    job = Job(job.record, job.plan.model_copy(update={"columns": Columns(**columns.model_dump())}))
    run_all(job)
    found = read_output(tmp_path / "out")
    assert [row["query_id"] for row in found] == ["q0000", "q0001", "q0002"]
    for row in found:
        assert list(row) == ["query_id", "candidates"]
        assert [each["rank"] for each in row["candidates"]] == [1, 2, 3]
        logits = [each["logit"] for each in row["candidates"]]
        assert logits == sorted(logits, reverse=True)
        by_id = {each["doc_id"]: each["extra"] for each in row["candidates"]}
        assert by_id == {r["doc_id"]: r["extra"] for r in rows if r["doc_id"] in by_id}


def test_a_trec_run_has_each_rows_rank_and_logit(tmp_path: Path) -> None:
    job = job_over(
        write(pairs(3, 4), tmp_path / "in.parquet"), tmp_path, shard_pairs=5, trec_run=True
    )
    run_all(job)
    write_trec_run(job)
    lines = Path(job.output.trec_run_uri).read_text().splitlines()
    rows = read_output(tmp_path / "out")
    assert [line.split()[:4] for line in lines] == [
        [row["query_id"], "Q0", row["doc_id"], str(row["rank"])] for row in rows
    ]
    written = [np.float32(line.split()[4]) for line in lines]
    assert written == [np.float32(row["logit"]) for row in rows]


@pytest.mark.parametrize(
    ("doc_id", "message"),
    [
        (None, "None"),
        (b"", "''"),
        (b"my doc", "'my doc'"),
        (b"c\nd", r"'c\\nd'"),
        (b"caf\xe9", "'caf\ufffd'"),
    ],
)
@pytest.mark.parametrize("is_text", [True, False])
def test_an_id_that_a_trec_run_cannot_hold_is_named(
    tmp_path: Path, doc_id: bytes | None, message: str, is_text: bool
) -> None:
    source = write([{**row, "doc_id": b"d"} for row in pairs(3, 1)], tmp_path / "in.parquet")
    table = pq.read_table(source)
    ids = pa.array([b"a", doc_id, b"b"])
    if is_text:
        ids = pa.Array.from_buffers(pa.string(), 3, ids.buffers())
    pq.write_table(table.set_column(1, "doc_id", ids), source)
    job = job_over(source, tmp_path, trec_run=True)
    run_all(job)
    with pytest.raises(InputError, match=f"^doc_id {message} cannot .* without --trec-run$"):
        write_trec_run(job)
    assert not Path(job.output.trec_run_uri).exists()


def test_a_trec_run_has_ids_of_other_types_as_text(tmp_path: Path) -> None:
    rows = [{**row, "query_id": n, "doc_id": b"a\xc3\xa4"} for n, row in enumerate(pairs(2, 1))]
    job = job_over(write(rows, tmp_path / "in.parquet"), tmp_path, trec_run=True)
    run_all(job)
    write_trec_run(job)
    lines = Path(job.output.trec_run_uri).read_text().splitlines()
    assert [line.split()[:3] for line in lines] == [["0", "Q0", "aä"], ["1", "Q0", "aä"]]


def test_a_trec_run_without_ids_is_refused(tmp_path: Path) -> None:
    rows = [{"query": "a", "document": "b"}]
    with pytest.raises(InputError, match="--trec-run needs a query id and a document id"):
        job_over(write(rows, tmp_path / "in.parquet"), tmp_path, trec_run=True)


def test_rows_that_wait_on_disk_give_the_same_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(pairs(9, 11), tmp_path / "in.parquet")
    run_all(job_over(source, tmp_path / "memory"))
    monkeypatch.setattr(spill, "_IN_MEMORY_BYTES", 1000)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    run_all(job_over(source, tmp_path / "disk"))
    parts = [
        (tmp_path / name / "out/part-00000.parquet").read_bytes() for name in ("memory", "disk")
    ]
    assert parts[0] == parts[1]
    assert not list(scratch.iterdir())


# Prints the peak of Arrow's memory, most of a shard's memory, in a process of its own.
RUN_AND_MEASURE = """
import sys
from pathlib import Path
import pyarrow as pa
from tests.support.shards import job_over, run_all
kept = ("doc_id", "document")
job = job_over(Path(sys.argv[1]), Path(sys.argv[2]), keep_cols=kept, shard_pairs=10**6)
run_all(job, window_pairs=4096)
print(pa.default_memory_pool().max_memory())
"""


def test_a_group_of_a_million_in_one_row_group_stays_small_in_memory(tmp_path: Path) -> None:
    n_rows, text = 1_000_000, "a document of some length " * 20
    piece = n_rows // 20
    schema = pa.schema(
        [
            ("query_id", pa.string()),
            ("doc_id", pa.int64()),
            *[(n, pa.string()) for n in ("query", "document")],
        ]
    )
    with pq.ParquetWriter(tmp_path / "in.parquet", schema, use_dictionary=False) as writer:
        tables = [
            pa.table(
                {
                    "query_id": pa.repeat("q", piece),
                    "doc_id": pa.array(np.arange(start, start + piece)),
                    "query": pa.repeat("query", piece),
                    "document": pa.array([f"{text}{n}" for n in range(start, start + piece)]),
                }
            )
            for start in range(0, n_rows, piece)
        ]
        n_bytes = sum(table.nbytes for table in tables)
        writer.write_table(pa.concat_tables(tables), row_group_size=n_rows)
    done = subprocess.run(
        [sys.executable, "-c", RUN_AND_MEASURE, str(tmp_path / "in.parquet"), str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 250 * 2**20 < n_bytes / 2
    assert pq.read_metadata(tmp_path / "out/part-00000.parquet").num_rows == n_rows
