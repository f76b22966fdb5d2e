"""Files of lake tables and of unfinished writes are never read as plain Parquet."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from producer.inputs.find import find
from producer.jobs.check import check
from producer.quality.qrels import read_qrels
from rankmill.contract.job import JobSpec
from rankmill.errors import InputError
from tests.support.lake import MARKS, put

WAYS = [
    "db/t",
    "db/t/",
    "db",
    "db/t/day=1",
    "db/t/day=1/x.parquet",
    "db/t/*",
    "db/t/*/*.parquet",
    "db/**/*.parquet",
    "db/*",
    "d?/t/day=1",
    "plain.parquet,db/t/day=1/x.parquet",
    "link",
    "linked.parquet",
    "links",
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    put(tmp_path, "db/t/day=1/x.parquet", "db/t/day=2/x.parquet", "plain.parquet")
    (tmp_path / "link").symlink_to("db/t/day=1")
    (tmp_path / "linked.parquet").symlink_to("db/t/day=1/x.parquet")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "a.parquet").symlink_to("../db/t/day=1/x.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", MARKS)
def test_no_way_to_a_table_reads_its_files(folder: Path, kind: str, way: str) -> None:
    assert find(way).files
    put(folder / "db" / "t", MARKS[kind])
    with pytest.raises(InputError, match=kind) as error:
        find(way)
    assert f"{folder}/db/t" in str(error.value) or "link" in way
    with pytest.raises(InputError, match=kind):
        check(JobSpec(input_uri=way, output_uri="out", model_id="null"))


@pytest.mark.parametrize("kind", MARKS)
def test_texts_and_judgments_of_a_table_are_refused_too(folder: Path, kind: str) -> None:
    put(folder / "db" / "t", MARKS[kind])
    options = {"input_uri": "plain.parquet", "output_uri": "out", "model_id": "null"}
    for role, other in (("queries", "corpus"), ("corpus", "queries")):
        texts = {role: "db/t/day=1", other: "plain.parquet"}
        with pytest.raises(InputError, match=kind):
            check(JobSpec(**options, layout="run", **texts))
    with pytest.raises(InputError, match=kind):
        read_qrels("db/t/day=1/x.parquet")


def test_a_folder_with_a_mark_and_nothing_else_is_a_table(folder: Path) -> None:
    (folder / "db" / "t" / "_delta_log").mkdir()
    with pytest.raises(InputError, match="Delta table"):
        find("db/t/day=1")


def test_files_of_a_ducklake_are_known_by_their_names(folder: Path) -> None:
    put(folder / "db" / "t", "day=1/ducklake-019a5c1e-7d3f-7c1a-9c3e-2f1d5b6a7c8d.parquet")
    for way in ("db", "db/t/day=1", "db/t/day=1/duck*", "db/**/*.parquet"):
        with pytest.raises(InputError, match=r"DuckLake table .*day=1; only its catalog says"):
            find(way)


def test_a_partition_that_was_copied_out_of_a_hudi_table_is_known(folder: Path) -> None:
    put(folder / "db" / "t" / "day=1", ".hoodie_partition_metadata")
    for way in ("db", "db/t/day=1", "db/t/day=1/x.parquet"):
        with pytest.raises(InputError, match=r"Hudi table .*day=1; |day=1 is a Hudi table; "):
            find(way)


@pytest.mark.parametrize(
    ("kind", "extra", "package"),
    [("Delta table", "delta", "deltalake"), ("Iceberg table", "iceberg", "pyiceberg")],
)
def test_the_error_without_the_extra_names_it(
    folder: Path, kind: str, extra: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder / "db" / "t", MARKS[kind])
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.catalog.noop", None)
    with pytest.raises(InputError, match=rf"{kind}, which.*: pip install 'rankmill\[{extra}\]'$"):
        find("db/t")


def test_a_table_next_to_a_folder_does_not_count_for_it(folder: Path) -> None:
    put(folder / "db" / "other", "x.parquet", *MARKS.values())
    put(folder / "db" / "t" / "metadata", "notes.txt")
    assert len(find("db/t").files) == 2


@pytest.mark.parametrize(
    "remains",
    [
        "_temporary/0/task/part.parquet",
        ".spark-staging-5c1/day=1/part.parquet",
        ".hive-staging_hive_2026-01-01_1/x",
        "_started_77",
    ],
)
@pytest.mark.parametrize(
    "way", ["db/t", "db", "db/t/day=1", "db/t/day=1/x.parquet", "db/t/*/*.pa*"]
)
def test_a_write_that_has_not_ended_is_refused(folder: Path, remains: str, way: str) -> None:
    put(folder / "db" / "t", remains)
    name = remains.partition("/")[0]
    with pytest.raises(InputError, match=rf"^{folder}/db/t holds {re.escape(name)} and no _"):
        find(way)
    put(folder / "db" / "t", "_SUCCESS", "_committed_77")
    assert find(way).files


def test_an_empty_temporary_folder_is_refused_too(folder: Path) -> None:
    (folder / "db" / "t" / "_temporary" / "0").mkdir(parents=True)
    with pytest.raises(InputError, match=r"_temporary and no _SUCCESS.*; write it again, or rem"):
        find("db/t")


def test_files_that_a_commit_has_replaced_are_refused(folder: Path) -> None:
    removed = b'{"added":["y.parquet"],"removed":["x.parquet"]}'
    put(folder / "db" / "t" / "day=1", "_started_9", "_committed_8")
    put(folder / "db" / "t" / "day=1", "_committed_9", content=removed)
    with pytest.raises(InputError, match=r"day=1: _committed_9 says that x.parquet was removed"):
        find("db/t")
    (folder / "db" / "t" / "day=1" / "x.parquet").unlink()
    assert len(find("db/t").files) == 1
