"""Places as users write them: with commas, schemes, tildes and colons."""

from __future__ import annotations

from pathlib import Path

import pytest

from producer.inputs.source import read_source
from producer.jobs.check import check
from rankmill import storage
from rankmill.contract.job import JobSpec
from rankmill.errors import InputError
from rankmill.settings import settings
from tests.support.inputs import pairs, write


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a,b/x.parquet", "a,b/c,d.parquet", "c/x.parquet", "e/x.parquet"):
        write(pairs(1, 2), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "one", ["a,b", "a,b/", "a,b/x.parquet", "a,b/*.parquet", "?,b", "./a,b/c,d.parquet", "c"]
)
def test_an_existing_name_with_commas_is_one_place(folder: Path, one: str) -> None:
    assert storage.places(one) == [one]
    assert read_source(one).n_rows in (2, 4)
    found = check(JobSpec(input_uri=one, output_uri="out,1", model_id="null"))
    assert found.record.spec.input_uri == storage.absolute(one)


def test_commas_separate_places_if_the_whole_does_not_exist(folder: Path) -> None:
    assert storage.places("c, e/*.parquet,") == ["c", "e/*.parquet"]
    many = ["c/x.parquet"] * 100  # longer than a file's name may be
    assert storage.places(",".join(many)) == many
    assert read_source("c,e").n_rows == 4


@pytest.mark.parametrize("nothing", ["", ",", " , ", " "])
def test_an_input_of_commas_only_is_refused(folder: Path, nothing: str) -> None:
    with pytest.raises(InputError, match=f"'{nothing}' names no place; give a file, a folder"):
        storage.places(nothing)


def test_an_output_with_commas_is_one_place(folder: Path) -> None:
    with pytest.raises(InputError, match="c,e: no such file"):
        read_source(["c,e"])


def test_a_folder_with_too_many_files_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.cache_clear()
    monkeypatch.setenv("RANKMILL_MAX_FILES", "2")
    assert len(storage.list_place("a,b").inside) == 2
    with pytest.raises(InputError, match=r"^\.: more than 2 files lie .*RANKMILL_MAX_FILES"):
        read_source(".")
    settings.cache_clear()


@pytest.mark.parametrize("uri", ["s3:/bucket/x", "file:/tmp/o", "FILE:/tmp/o", "hdfs:/x"])
def test_a_scheme_without_its_slashes_is_refused(folder: Path, uri: str) -> None:
    for touch in (storage.exists, storage.absolute, storage.is_local):
        with pytest.raises(InputError, match=f"^{uri}: write s3://bucket/key or file:///.*./{uri}"):
            touch(uri)


@pytest.mark.parametrize("uri", ["file://host/tmp/o", "file://tmp", "file://", "FILE://o/x"])
def test_a_host_before_a_path_is_refused(folder: Path, uri: str) -> None:
    with pytest.raises(
        InputError, match=f"^{uri}: a file:// place has no host; write file:///folder/file"
    ):
        storage.absolute(uri)


@pytest.mark.parametrize("start", ["file://", "FILE://", "file://localhost", "File://LOCALHOST"])
def test_a_path_may_be_written_as_a_uri(folder: Path, start: str) -> None:
    assert storage.absolute(f"{start}{folder}/c") == f"{folder}/c"
    assert storage.exists(f"{start}{folder}/c/x.parquet")


def test_a_path_may_have_colons_in_it(folder: Path) -> None:
    for path in ("a:b", "12:30/x", "./s3:/x", "x/file:/y"):
        storage.write_bytes(f"{path}/file", b"x")
        assert (folder / path / "file").exists()


def test_a_tilde_is_the_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder / "home"))
    assert storage.absolute("~/out") == f"{folder}/home/out"
    assert storage.absolute("~") == f"{folder}/home"
    assert storage.absolute("./~/out") == f"{folder}/~/out"
    assert storage.absolute("~nobody-of-that-name/x") == f"{folder}/~nobody-of-that-name/x"
    write(pairs(1, 2), folder / "home" / "in.parquet")
    spec = check(JobSpec(input_uri="~/*.parquet", output_uri="~/out", model_id="null")).record.spec
    assert spec.input_uri == f"{folder}/home/*.parquet"
    assert spec.output_uri == f"{folder}/home/out"


@pytest.mark.parametrize(
    ("place", "output", "is_apart"),
    [
        ("in", "in", False),
        ("in", "in/out", False),
        ("in", "in/_out", False),
        ("in", "in2", True),
        ("in", "to-in/out", False),
        ("to-in", "in/out", False),
        ("in/*.parquet", "in/out", True),
        ("in/*", "in/out", False),
        ("i*", "in2", False),
        ("i*", "in/out", False),
        ("i?", "in2", True),
        ("to-*/*.parquet", "to-out", False),
        ("to-*/in*.parquet", "to-out", True),
        ("to-in/*/*.parquet,texts", "in/out", False),
        ("**/*.parquet", "out", False),
        ("**/in.parquet", "out", True),
        ("in/in.parquet", "in/out", True),
        ("in/[1].parquet", "in/out", True),
    ],
)
def test_an_output_that_overlaps_an_input_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, output: str, is_apart: bool
) -> None:
    for name in ("in/in.parquet", "in/[1].parquet", "in/deep/in.parquet", "texts/in.parquet"):
        write([{"query_id": "1", "doc_id": "2", "text": "x"}], tmp_path / name)
    (tmp_path / "to-in").symlink_to("in")
    monkeypatch.chdir(tmp_path)
    roles = ("input_uri", "queries", "corpus")
    for role in roles:
        places = {**dict.fromkeys(roles, "texts"), role: place}
        spec = JobSpec(**places, output_uri=output, model_id="null", layout="run")
        if is_apart:
            check(spec)
        else:
            with pytest.raises(InputError, match=f"the output .*/{output} lies in the input /"):
                check(spec)
