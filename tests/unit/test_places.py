"""What the places mean that a user names, commas and schemes included."""

from __future__ import annotations

from pathlib import Path

import pytest

from producer.plan import read_source
from producer.submit import check
from rankmill import storage
from rankmill.errors import InputError
from rankmill.spec import JobSpec
from tests.inputs import pairs, write


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a,b/x.parquet", "a,b/c,d.parquet", "c/x.parquet", "e/x.parquet"):
        write(pairs(1, 2), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "one", ["a,b", "a,b/", "a,b/x.parquet", "a,b/*.parquet", "?,b", "./a,b/c,d.parquet", "c"]
)
def test_what_is_there_with_its_commas_is_one_place(folder: Path, one: str) -> None:
    assert storage.places(one) == [one]
    assert read_source(one).n_rows in (2, 4)
    found = check(JobSpec(input_uri=one, output_uri="out,1", model_id="null"))
    assert found.record.spec.input_uri == storage.absolute(one)


def test_commas_divide_what_is_not_there_as_a_whole(folder: Path) -> None:
    assert storage.places("c, e/*.parquet,") == ["c", "e/*.parquet"]
    many = ["c/x.parquet"] * 100  # longer than a file's name may be
    assert storage.places(",".join(many)) == many
    assert read_source("c,e").n_rows == 4


@pytest.mark.parametrize("nothing", ["", ",", " , ", " "])
def test_an_input_that_names_no_place_is_refused(folder: Path, nothing: str) -> None:
    with pytest.raises(InputError, match=f"'{nothing}' names no place; give a file, a folder"):
        storage.places(nothing)


def test_a_folder_of_our_own_is_one_place_whatever_it_is_called(folder: Path) -> None:
    with pytest.raises(InputError, match="c,e: no such file"):
        read_source(["c,e"])
