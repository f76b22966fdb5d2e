"""A folder is read if its files are one set of rows, and refused if they may be several."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pytest

from producer.inputs.find import find
from producer.jobs.check import check
from rankmill.contract.job import JobSpec
from rankmill.errors import InputError
from tests.support.lake import put

DESCRIPTIONS = [
    "_SUCCESS",
    "README.md",
    ".gitattributes",
    "dataset_info.json",
    "_metadata",
    "_common_metadata",
    ".a.parquet.crc",
    "a.parquet.crc",
    "a.parquet.sha256",
    "SHA256SUMS",
    "LICENSE",
    "_rankmill/out/job.json",
    "_rankmill/out/rejected/part-00000.parquet",
]


def test_files_that_describe_the_data_are_not_read(tmp_path: Path) -> None:
    put(tmp_path, "in/a.parquet", "in/b.PQ", "in/sub/c.parq", *(f"in/{d}" for d in DESCRIPTIONS))
    names = ["in/a.parquet", "in/b.PQ", "in/sub/c.parq"]
    for place, wanted in (("in", names), ("in/*", names), ("in/*.p*", names[:1]), ("*", names)):
        found = find(f"{tmp_path}/{place}").files
        there = [Path(file.uri).relative_to(tmp_path).as_posix() for file in found]
        assert there == wanted, place


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["a.parquet", "b.jsonl", "c.pq"], "Parquet (a.parquet) and JSONL (b.jsonl)"),
        (["a.parquet", "b.jsonl.gz"], "Parquet (a.parquet) and JSONL (b.jsonl.gz)"),
        (["a.parquet", "sub/b.csv"], "Parquet (a.parquet) and CSV (sub/b.csv)"),
        (["a.orc", "b.parquet"], "ORC (a.orc) and Parquet (b.parquet)"),
        (["a.avro", "b.jsonl"], "Avro (a.avro) and JSONL (b.jsonl)"),
        (["a.arrow", "b.jsonl"], "Arrow (a.arrow) and JSONL (b.jsonl)"),
        (["a.feather", "b.parquet"], "Arrow (a.feather) and Parquet (b.parquet)"),
        (["a.parquet", "b.parquet.gz"], "Parquet (a.parquet) and packed Parquet (b.parquet.gz)"),
        (["a.tsv", "b.run"], "TSV (a.tsv) and a TREC run (b.run)"),
    ],
)
def test_several_kinds_in_a_folder_are_refused(
    tmp_path: Path, names: list[str], shown: str
) -> None:
    put(tmp_path, *names)
    wanted = f"^{re.escape(str(tmp_path))} holds {re.escape(shown)}.*; say which by a glob such as "
    with pytest.raises(InputError, match=wanted) as error:
        find(str(tmp_path))
    assert find(str(error.value).rpartition(" such as ")[2]).files or ".jsonl" in names


def test_a_kind_that_only_the_content_shows_counts_too(tmp_path: Path) -> None:
    put(tmp_path, "a.parquet")
    pa.feather.write_feather(pa.table({"query": ["x"]}), tmp_path / "other")
    with pytest.raises(InputError, match=r"by its content Arrow \(other\); say which by a glob"):
        find(str(tmp_path))
    put(tmp_path, "b.parquet")
    (tmp_path / "b.parquet").rename(tmp_path / "other")
    with pytest.raises(InputError, match=r"by its content Parquet \(other\); say which by a glob"):
        find(str(tmp_path))
    assert len(find(f"{tmp_path}/*").files) == 2


@pytest.mark.parametrize(
    "names",
    [
        ["x.jsonl", "x.jsonl.gz"],
        ["x.jsonl", "x.jsonl.zst"],
        ["x.jsonl.gz", "x.jsonl.zst"],
        ["x.jsonl", "x.json"],
        ["sub/x.parquet", "sub/x.pq"],
        ["x.tsv", "x.tsv.gz"],
    ],
)
def test_a_file_packed_and_unpacked_is_refused(tmp_path: Path, names: list[str]) -> None:
    put(tmp_path, *names)
    first, second = (re.escape(name) for name in names)
    for place in (str(tmp_path), f"{tmp_path}/{'*/' * names[0].count('/')}x*"):
        with pytest.raises(
            InputError, match=rf"({first} and {second}|{second} and {first}), which"
        ):
            find(place)


def test_a_file_with_the_stem_of_another_kind_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "x.parquet", "x.jsonl")
    with pytest.raises(InputError, match=r"Parquet \(x.parquet\)|JSONL \(x.jsonl\)"):
        find(str(tmp_path))


@pytest.mark.parametrize(
    "names",
    [
        ["train-00000-of-00001.parquet", "test-00000-of-00001.parquet"],
        ["data/train-00000-of-00002.parquet", "data/validation-00000-of-00001.parquet"],
        ["train/a.parquet", "test/a.parquet"],
        ["train.parquet", "dev.parquet"],
        ["corpus.jsonl", "queries.jsonl"],
        ["my_train.parquet", "my_val.parquet"],
        ["Train/1.parquet", "Eval/1.parquet"],
        ["split=train/a.parquet", "split=test/a.parquet"],
        ["en/unsupervised-00000-of-00001.parquet", "en/gold-00000-of-00001.parquet"],
    ],
)
def test_splits_in_a_folder_are_refused(tmp_path: Path, names: list[str]) -> None:
    put(tmp_path, *names)
    with pytest.raises(InputError, match=rf"^{tmp_path} holds several sets of rows, ") as error:
        find(str(tmp_path))
    line = str(error.value)
    one, every = re.findall(r"such as (\S+?),? or all|by a glob such as (\S+)$", line)
    assert len(find(one[0]).files) == 1, line
    assert len(find(every[1]).files) == 2, line
    for name in names:
        assert len(find(f"{tmp_path}/{name}").files) == 1


@pytest.mark.parametrize(
    "names",
    [
        ["part-00000-of-00002.parquet", "part-00001-of-00002.parquet"],
        ["test/a.parquet", "test/b.parquet"],
        ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
        ["env=test/a.parquet", "env=dev/a.parquet"],
        ["trains.parquet", "tests.parquet"],
        ["en/train-00000-of-00001.parquet", "de/train-00000-of-00001.parquet"],
    ],
)
def test_a_single_split_is_read(tmp_path: Path, names: list[str]) -> None:
    put(tmp_path, *names)
    assert len(find(str(tmp_path)).files) == 2


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "no such file, and no Parquet, JSONL, CSV, TSV, Arrow or TREC run file under it$"),
        (["a.bin", "b.zip"], r"run file under it, only a.bin, b.zip; a glob such as .*/\* reads"),
        (["_a.parquet"], "under it, only hidden ones: _a.parquet$"),
        (
            ["a.orc"],
            r"holds ORC \(a.orc\), which is not read; give Parquet, Arrow, JSONL",
        ),
    ],
)
def test_the_error_for_a_folder_without_rows_lists_its_files(
    tmp_path: Path, names: list[str], said: str
) -> None:
    put(tmp_path, *names)
    with pytest.raises(InputError, match=said):
        find(str(tmp_path))


def test_files_without_a_suffix_are_read_by_a_glob(tmp_path: Path) -> None:
    put(tmp_path, "x.parquet", "_SUCCESS")
    (tmp_path / "x.parquet").rename(tmp_path / "20261127_144951_00037")
    assert [Path(file.uri).name for file in find(f"{tmp_path}/*").files] == [
        "20261127_144951_00037"
    ]


def test_an_output_is_an_input_once_its_job_has_succeeded(tmp_path: Path) -> None:
    put(tmp_path, "in.parquet")
    spec = JobSpec(
        input_uri=f"{tmp_path}/in.parquet", output_uri=f"{tmp_path}/out", model_id="null"
    )
    job = check(spec)
    job.output.write_job(job.record)
    put(tmp_path, "out/part-00000.parquet")
    for place in ("out", "out/part-00000.parquet", "out/*.parquet"):
        with pytest.raises(InputError, match=rf"^{tmp_path}/out is the output of a job that has n"):
            find(f"{tmp_path}/{place}")
    job.output.mark_success()
    for place in ("out", "out/part-00000.parquet", "out/*.parquet"):
        assert len(find(f"{tmp_path}/{place}").files) == 1
