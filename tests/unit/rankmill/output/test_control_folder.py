"""Control files are next to an output: one folder for each output, and never input."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_IMODE

import pytest

from producer.jobs.check import check
from rankmill import storage
from rankmill.contract.job import JobSpec
from rankmill.errors import InputError, NotAllowed, StorageRefused
from rankmill.output import control_folder
from rankmill.output.output import Output
from tests.conftest import forget_settings
from tests.support.inputs import pairs, write

ALLOWED = "RANKMILL_ALLOWED_PREFIXES"


@pytest.fixture
def allow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    def allowed(*prefixes: object) -> None:
        monkeypatch.setenv(ALLOWED, ",".join(map(str, prefixes)))
        forget_settings()

    yield allowed
    monkeypatch.undo()
    forget_settings()


def spec_for(output: object, source: object) -> JobSpec:
    return JobSpec(input_uri=str(source), output_uri=str(output), model_id="null")


def test_no_two_outputs_share_a_control_folder() -> None:
    outputs = [
        *("s3://b/a/out", "s3://b/a//out", "s3://b//a/out", "s3://b/out", "s3://b//out"),
        *("s3://b/a/out/out", "s3://b/A/out", "s3://b/a/Out", "s3://c/a/out", "s3://b/a/out.x"),
        *("/a/out", "/out", "/a/out/out", "/a/Out", "/a/out x", "/a/out=1"),
    ]
    places = [control_folder.next_to(uri) for uri in outputs]
    assert len({*places}) == len(outputs)
    for uri, place in zip(outputs, places, strict=True):
        assert not storage.lies_in(place, uri)
        assert not any(storage.lies_in(each, place) for each in places if each != place)


def test_all_names_of_an_output_have_one_control_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    monkeypatch.chdir(tmp_path)
    plain = ["out", "out/", "out//", "./out", "link/../out"]
    names = [*plain, f"{tmp_path}//out", f"file://{tmp_path}/out"]
    wanted = str(tmp_path / "_rankmill" / "out")
    assert {control_folder.next_to(storage.absolute(name)) for name in names} == {wanted}
    by_link = control_folder.next_to(str(tmp_path / "link" / "out"))
    assert by_link == str(tmp_path / "there" / "_rankmill" / "out")
    s3 = ("s3://b/a/out", "s3://b/a/out/", "s3://b/a/out//", "S3://b/a/out")
    assert {control_folder.next_to(storage.absolute(name)) for name in s3} == {
        "s3://b/a/_rankmill/out"
    }


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("/", "has nothing next to it"),
        ("s3://bucket", "has nothing next to it"),
        ("s3://bucket//", "has nothing next to it"),
        ("_rankmill", "folders called _rankmill are for control files"),
        ("_RankMill/x", "folders called _rankmill are for control files"),
        ("a/_rankmill/out/x", "folders called _rankmill are for control files"),
    ],
)
def test_an_output_with_nothing_next_to_it_is_refused(
    tmp_path: Path, output: str, message: str
) -> None:
    source = write(pairs(1, 2), tmp_path / "in.parquet")
    place = output if output == "/" or "://" in output else tmp_path / output
    with pytest.raises(InputError, match=message) as caught:
        check(spec_for(place, source))
    assert "give a" in str(caught.value)
    assert sorted(tmp_path.iterdir()) == [source]


def test_an_output_that_is_an_allowed_prefix_is_refused(
    tmp_path: Path, allow: Callable[..., None]
) -> None:
    source = write(pairs(1, 2), tmp_path / "in" / "a.parquet")
    allow(tmp_path / "out", source.parent)
    message = f"{tmp_path}/_rankmill/out lies outside .* give a folder below {tmp_path}/out"
    with pytest.raises(NotAllowed, match=message):
        check(spec_for(tmp_path / "out", source))
    check(spec_for(tmp_path / "out" / "one", source))
    allow(source.parent, "s3://bucket/jobs/")
    with pytest.raises(NotAllowed, match="give a folder below s3://bucket/jobs"):
        control_folder.check_output_place("s3://bucket/jobs")
    control_folder.check_output_place("s3://bucket/jobs/one")


@contextmanager
def as_nobody() -> Iterator[None]:
    """Drop the rights of root, who may write everywhere."""
    own = os.geteuid()
    if own == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(own)


def test_a_read_only_parent_is_refused_with_advice() -> None:
    with tempfile.TemporaryDirectory() as parent:
        volume = Path(parent, "volume")
        volume.mkdir()
        volume.chmod(0o777)
        Path(parent).chmod(0o555)
        with as_nobody():
            output = Output(str(volume))
            message = f"access is denied; control files go .* give a folder below {volume}"
            with pytest.raises(StorageRefused, match=message):
                control_folder.check_writable(output.uri, output.control_uri)
            below = Output(str(volume / "one"))
            control_folder.check_writable(below.uri, below.control_uri)
        assert [path.name for path in Path(parent).iterdir()] == ["volume"]
        Path(parent).chmod(0o755)


def test_the_folder_of_control_folders_has_the_mode_of_its_parent(tmp_path: Path) -> None:
    team = tmp_path / "team"
    team.mkdir()
    team.chmod(0o2775)
    output = Output(str(team / "out"))
    control_folder.check_writable(output.uri, output.control_uri)
    assert S_IMODE((team / "_rankmill").stat().st_mode) == 0o2775


def test_control_files_are_input_only_by_their_name(tmp_path: Path) -> None:
    wanted = write(pairs(1, 1), tmp_path / "data" / "in.parquet")
    mine = write(pairs(1, 1), tmp_path / "data/_rankmill/out/rejected/part-00000.parquet")

    def found(place: str) -> list[str]:
        return [file.uri for file in storage.find_files(f"{tmp_path}/{place}", (".parquet",))]

    for place in ("data", "", "**/*.parquet", "data/**", "d*", "data/*"):
        assert found(place) == [str(wanted)], place
    assert storage.list_files(f"{tmp_path}/*/*/out/**", (".parquet",)) == []
    for place in ("data/_rankmill/out/rejected", "d*/_rankmill/*/rejected/*.parquet"):
        assert found(place) == [str(mine)]
    assert found("data/_rankmill/out/rejected/part-00000.parquet") == [str(mine)]


def test_an_output_whose_control_folder_holds_input_is_refused(tmp_path: Path) -> None:
    source = write(pairs(1, 2), tmp_path / "_rankmill/out/rejected/part-00000.parquet")
    for place in (source, source.parent, tmp_path / "_rankmill"):
        with pytest.raises(InputError, match="lies in"):
            check(spec_for(tmp_path / "out", place))
    check(spec_for(tmp_path / "again", source))
