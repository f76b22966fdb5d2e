from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.inputs.source import read_source
from producer.jobs.check import plan_job
from rankmill.contract.job import JobSpec
from rankmill.contract.plan import REFUSAL_COLUMN
from rankmill.errors import InputError
from rankmill.output.output import Job
from rankmill.tables.files import Damaged, read_files
from tests.support.inputs import pairs, write
from tests.support.prepared import damage
from worker.shard.reader import RowReader, locate_row, owned_rows


def planned(folder: Path, files: list[list[dict[str, object]]], shard_pairs: int) -> Job:
    for n, rows in enumerate(files):
        write(rows, folder / "in" / f"{n}.parquet", row_group_size=3)
    return planned_from(folder, shard_pairs)


def planned_from(folder: Path, shard_pairs: int) -> Job:
    spec = JobSpec(
        input_uri=str(folder / "in"),
        output_uri=str(folder / "out"),
        model_id="null",
        shard_pairs=shard_pairs,
    )
    return plan_job(spec)


@settings(max_examples=80)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    without_key=st.sets(st.integers(0, 60)),
    cut=st.integers(1, 40),
    shard_pairs=st.integers(1, 25),
    batch_rows=st.integers(1, 12),
    skipped=st.sets(st.integers(0, 60)),
)
def test_every_row_is_in_one_shard_and_no_group_is_split(
    sizes: list[int],
    without_key: set[int],
    cut: int,
    shard_pairs: int,
    batch_rows: int,
    skipped: set[int],
) -> None:
    """Shards are read by one reader in turn; another worker has the skipped ones."""
    rows: list[dict[str, object]] = [
        {"query_id": f"q{q}", "doc_id": f"d{q}-{c}", "query": "a", "document": "b"}
        for q, size in enumerate(sizes)
        for c in range(size)
    ]
    for row in without_key & set(range(len(rows))):
        rows[row]["query_id"] = None
    with tempfile.TemporaryDirectory() as folder:
        files = [part for part in (rows[:cut], rows[cut:]) if part]
        job = planned(Path(folder), files, shard_pairs)
        shard_of: dict[str, set[int]] = {}
        seen: list[str] = []
        columns = ["query_id", "doc_id"]
        shared = RowReader()
        for n in range(job.plan.n_shards):
            groups: list[int] = []
            reader = RowReader() if n in skipped else shared
            cuts = []
            for owned in owned_rows(job, job.shard(n), columns, batch_rows, reader):
                cuts.append((owned.first_row, owned.stop_row))
                at = range(owned.first_row, owned.first_row + owned.table.num_rows)
                assert owned.table["doc_id"].to_pylist() == [rows[i]["doc_id"] for i in at]
                seen += owned.table["doc_id"].to_pylist()
                groups += owned.groups.tolist()
                for query_id in filter(None, owned.table["query_id"].to_pylist()):
                    shard_of.setdefault(query_id, set()).add(n)
            assert np.all(np.diff([-1, *groups]) <= 1) and groups == sorted(groups)
            fresh = owned_rows(job, job.shard(n), columns, batch_rows)
            assert cuts == [(owned.first_row, owned.stop_row) for owned in fresh]
        assert seen == [row["doc_id"] for row in rows]
        assert all(len(shards) == 1 for shards in shard_of.values())


@settings(max_examples=80)
@given(
    n_rows=st.integers(1, 60),
    cut=st.integers(1, 60),
    start_row=st.integers(0, 59),
    batch_rows=st.integers(1, 14),
)
def test_tables_are_half_full_at_least_and_go_on_from_one_another(
    n_rows: int, cut: int, start_row: int, batch_rows: int
) -> None:
    rows: list[dict[str, object]] = pairs(1, n_rows)
    with tempfile.TemporaryDirectory() as folder:
        job = planned(Path(folder), [part for part in (rows[:cut], rows[cut:]) if part], 100)
        tables = list(RowReader().tables(job, ["doc_id"], min(start_row, n_rows - 1), batch_rows))
    sizes = [table.num_rows for _, table in tables]
    assert all(2 * size >= batch_rows for size in sizes[:-1]) and max(sizes) <= batch_rows
    row = tables[0][0]
    for first_row, table in tables:
        assert first_row == row
        assert table["doc_id"].to_pylist() == [each["doc_id"] for each in rows[row:][: len(table)]]
        row += table.num_rows
    assert row == n_rows


def test_a_reader_that_goes_on_cuts_as_a_new_one_does(tmp_path: Path) -> None:
    sizes = (6, 3, 2, 7, 6, 2, 8, 4, 7)
    rows = iter(pairs(1, sum(sizes)))
    for n, size in enumerate(sizes):
        write(list(islice(rows, size)), tmp_path / "in" / f"{n}.parquet")
    spec = JobSpec(input_uri=f"{tmp_path}/in", output_uri=f"{tmp_path}/out", model_id="null")
    job = plan_job(spec)

    def cuts(reader: RowReader, start_row: int) -> list[tuple[int, int]]:
        tables = reader.tables(job, ["doc_id"], start_row, 9)
        return [(row, table.num_rows) for row, table in tables]

    for n_read in range(1, 4):
        for start_row in range(1, 45):
            reader = RowReader()
            list(islice(reader.tables(job, ["doc_id"], 0, 9), n_read))
            assert cuts(reader, start_row) == cuts(RowReader(), start_row)


@pytest.mark.parametrize("batch_rows", [7, 8, 15])
@pytest.mark.parametrize("start_row", [0, 1, 5, 13])
def test_few_tables_span_two_that_were_read(
    start_row: int, batch_rows: int, tmp_path: Path
) -> None:
    source = write(pairs(1, 300), tmp_path / "in.parquet", row_group_size=100)
    job = plan_job(JobSpec(input_uri=str(source), output_uri=f"{tmp_path}/out", model_id="null"))
    tables = [table for _, table in RowReader().tables(job, ["doc_id"], start_row, batch_rows)]
    in_pieces = sum(table["doc_id"].num_chunks > 1 for table in tables)
    assert len(tables) >= 19 and in_pieces <= 3  # one for each row group's rest


def test_a_query_that_comes_back_is_an_error_with_its_row(tmp_path: Path) -> None:
    rows = pairs(3, 2)
    job = planned(tmp_path, [[*rows, rows[0]]], 100)
    with pytest.raises(InputError, match=r"query_id 'q0000' comes again in row 6 .* --cluster"):
        list(owned_rows(job, job.shard(0), ["doc_id"], 4))


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    job = planned(tmp_path, [pairs(2, 2)], 100)
    write(pairs(3, 2), tmp_path / "in" / "0.parquet")
    with pytest.raises(InputError, match="changed or was removed after the job"):
        list(RowReader().tables(job, ["query"], 0, 10))


def test_the_next_shard_finds_its_first_rows_read_unless_the_file_changed(tmp_path: Path) -> None:
    job = planned(tmp_path, [pairs(6, 5)], 10)
    reader = RowReader()
    list(owned_rows(job, job.shard(0), ["doc_id"], 4, reader))
    reading, row = ["doc_id", "query_id"], job.shard(1).start_row
    cached = reader.cached_row(job, reading, row, 4)
    assert cached is not None and cached["doc_id"][0].as_py() == pairs(6, 5)[row]["doc_id"]
    assert reader.cached_row(job, ["doc_id"], row, 4) is None
    write(pairs(6, 6), tmp_path / "in" / "0.parquet")
    with pytest.raises(InputError, match="changed or was removed after the job"):
        list(owned_rows(job, job.shard(1), ["doc_id"], 4, reader))


def test_a_reader_starts_over_after_an_error(tmp_path: Path) -> None:
    job = planned(tmp_path, [pairs(3, 2), pairs(3, 2)], 100)
    second = tmp_path / "in" / "1.parquet"
    second.rename(tmp_path / "away")
    reader = RowReader()
    for _ in range(2):
        with pytest.raises(InputError, match="changed or was removed after the job"):
            list(reader.tables(job, ["query"], 0, 4))
    (tmp_path / "away").rename(second)
    assert sum(table.num_rows for _, table in reader.tables(job, ["query"], 4, 4)) == 8


def test_a_damaged_row_group_is_named(tmp_path: Path) -> None:
    job = planned(tmp_path, [pairs(6, 5)], 100)
    path = tmp_path / "in" / "0.parquet"
    content = bytearray(path.read_bytes())
    before = path.stat()
    content[4:60] = b"\xff" * 56
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(InputError, match=r"0\.parquet: row group 0 cannot be read"):
        list(RowReader().tables(job, None, 0, 10))


def test_a_reader_goes_by_what_its_job_accepts_now(tmp_path: Path) -> None:
    """As where the same job is submitted again with --damaged reject, and continues."""
    path = write(pairs(6, 5), tmp_path / "in" / "0.parquet", row_group_size=3)
    damage(path, 6)
    job = planned_from(tmp_path, 100)
    reader = RowReader()
    begun = list(islice(reader.tables(job, None, 0, 3), 2))
    spec = job.spec.model_copy(update={"damaged": "reject"})
    accepting = replace(job, record=job.record.model_copy(update={"spec": spec}))
    rest = [table for _, table in reader.tables(accepting, None, 3, 3)]
    assert len(begun) == 2 and sum(table.num_rows for table in rest) == 27
    assert any(table[REFUSAL_COLUMN].null_count == 0 for table in rest)


def claim_more_rows(path: Path, n_rows: int, n_claimed: int) -> None:
    """Make the footer of a file with one row group claim another number of rows."""
    content = path.read_bytes()
    footer_at = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    there, claimed = (bytes([0x16, 2 * n]) for n in (n_rows, n_claimed))  # an i64 of Thrift's
    first, last = content.index(there, footer_at), content.rindex(there, footer_at)
    for at in (first, last):  # the file's, and after the columns' the row group's
        content = content[:at] + claimed + content[at + 2 :]
    path.write_bytes(content)


@pytest.mark.parametrize("damaged", ["fail", "reject"])
def test_a_row_group_with_fewer_rows_than_its_footer_says_is_damaged(
    tmp_path: Path, damaged: Damaged
) -> None:
    path = write(pairs(1, 41), tmp_path / "in.parquet", write_statistics=False)
    claim_more_rows(path, 41, 47)
    source = read_source(str(path))
    assert source.n_rows == 47
    tables = read_files(source.files, source.schema, None, 0, 100, damaged)
    first = next(tables)
    assert first.num_rows == 41 and first[REFUSAL_COLUMN].null_count == 41
    if damaged == "fail":
        with pytest.raises(InputError, match="row group 0 cannot be read: 6 of its rows are missi"):
            next(tables)
    else:
        (rest,) = list(tables)
        assert rest[REFUSAL_COLUMN].to_pylist() == ["row group 0 is damaged"] * 6


def test_rows_are_named_by_file_and_place(tmp_path: Path) -> None:
    job = planned(tmp_path, [pairs(1, 3), pairs(1, 4)], 100)
    assert [locate_row(job.plan, row)[1] for row in range(7)] == [0, 1, 2, 0, 1, 2, 3]
    assert locate_row(job.plan, 3)[0].uri.endswith("1.parquet")
