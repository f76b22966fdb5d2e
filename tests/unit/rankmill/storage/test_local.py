from __future__ import annotations

import hashlib
import os
import re
import socket
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankmill import storage
from rankmill.errors import InputError, StorageRefused, StorageUnavailable
from rankmill.storage.glob import is_glob, matches


def test_a_publish_that_fails_leaves_the_old_content_and_no_trace(tmp_path: Path) -> None:
    target = tmp_path / "a" / "file"
    storage.write_bytes(str(target), b"old")

    def write(file: IO[bytes]) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        storage.publish(str(target), write)
    assert target.read_bytes() == b"old"
    assert [path.name for path in target.parent.iterdir()] == ["file"]


def test_a_file_is_invisible_until_it_is_written(tmp_path: Path) -> None:
    target = tmp_path / "file"

    def write(file: IO[bytes]) -> None:
        file.write(b"x" * 10)
        file.flush()
        assert not target.exists()

    published = storage.publish(str(target), write)
    assert target.read_bytes() == b"x" * 10
    assert published.n_bytes == 10
    assert published.sha256 == hashlib.sha256(b"x" * 10).hexdigest()


def test_a_full_disk_is_reported_and_leaves_nothing() -> None:
    name = f"rankmill-full-test-{os.getpid()}-"
    with pytest.raises(StorageRefused, match="the disk is full"):
        storage.publish(f"/dev/shm/{name}", _raise_enospc)
    assert not [each for each in os.listdir("/dev/shm") if name in each]


def _raise_enospc(file: IO[bytes]) -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        full.write(b"x")


def test_a_file_in_the_way_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises((StorageRefused, StorageUnavailable), match="cannot write"):
        storage.write_bytes(str(tmp_path / "file" / "below"), b"")


def test_temporaries_of_killed_writers_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".part.abc.rankmill-tmp").touch()
    (tmp_path / "part").touch()
    storage.remove_unfinished(str(tmp_path))
    assert storage.names(str(tmp_path)) == ["part"]


def test_a_link_to_a_folder_above_is_not_followed(tmp_path: Path) -> None:
    for name in ("in/a.parquet", "in/sub/b.parquet", "other/c.parquet"):
        storage.write_bytes(str(tmp_path / name), b"x")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "sub" / "up").symlink_to("..")
    (tmp_path / "in" / "other").symlink_to(tmp_path / "other")
    (tmp_path / "other" / "back").symlink_to(tmp_path / "in")
    found = storage.find_files(str(tmp_path / "in"), (".parquet",))
    names = [Path(file.uri).relative_to(tmp_path / "in").as_posix() for file in found]
    assert names == ["a.parquet", "other/c.parquet", "sub/b.parquet"]


def test_a_file_has_one_name_however_it_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write_bytes(str(tmp_path / "in" / "a.parquet"), b"x")
    monkeypatch.chdir(tmp_path)
    for place in ("in", "in/*", "in/a.parquet", "./in/../in/a.parquet", f"file://{tmp_path}/in"):
        [file] = storage.find_files(place, (".parquet",))
        assert file.uri == f"{tmp_path}/in/a.parquet"


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("[a-c]", {"a", "b"}),
        ("[!a-c]", {"x", "-", "!", "^", "\\", "[", "]"}),
        ("[^a-c]", {"x", "-", "!", "^", "\\", "[", "]"}),
        ("[!]", {"!"}),
        ("[a-]", {"a", "-"}),
        ("[\\]", {"\\"}),
        ("[[^x]", {"[", "^", "x"}),
        ("[+--x]", {"-", "x"}),
        ("?", {"a", "b", "x", "-", "!", "^", "\\", "[", "]"}),
    ],
)
def test_brackets_are_not_regular_expressions(pattern: str, wanted: set[str]) -> None:
    there = ["a", "b", "x", "-", "!", "^", "\\", "[", "]", "/", "ab"]
    assert {name for name in there if matches(name, pattern)} == wanted


def test_an_impossible_range_is_one_line(tmp_path: Path) -> None:
    storage.write_bytes(str(tmp_path / "part-1.parquet"), b"x")
    with pytest.raises(InputError, match=r"^part-\[9-0\]\.parquet: a range in \[\] ends"):
        storage.find_files(f"{tmp_path}/part-[9-0].parquet", (".parquet",))


def test_a_folder_with_brackets_in_its_name_is_read(tmp_path: Path) -> None:
    for name in ("a[b]c", "p[[]", "[!"):
        storage.write_bytes(str(tmp_path / name / "x.parquet"), b"x")
        [file] = storage.find_files(f"{tmp_path}/{name}", (".parquet",))
        assert file.uri == f"{tmp_path}/{name}/x.parquet"


def test_a_glob_may_begin_at_the_root(tmp_path: Path) -> None:
    storage.write_bytes(str(tmp_path / "in.parquet"), b"x")
    _, first, rest = str(tmp_path).split("/", 2)
    [file] = storage.find_files(f"/{first[:-1]}?/{rest}/in.parquet", (".parquet",))
    assert file.uri == f"{tmp_path}/in.parquet"


@pytest.mark.parametrize(
    "pattern", ["cand-*.parquet", "*.parquet", "day=[12]/*.parquet", "day=?", "day=1/**/c*"]
)
def test_a_glob_lists_only_folders_that_may_match(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    for name in ("cand-1.parquet", "day=1/cand-2.parquet", "private/cand-3.parquet"):
        storage.write_bytes(str(tmp_path / name), b"x")
    entered = []
    listed = os.listdir

    def listing(folder: Path) -> list[str]:
        entered.append(Path(folder).name)
        return listed(folder)

    monkeypatch.setattr(os, "listdir", listing)
    assert len(storage.find_files(f"{tmp_path}/{pattern}", (".parquet",))) == 1
    assert "private" not in entered


_PIECES = ["a", "b", "/", "*", "**", "**/", "?", "[ab]", "[!a]", "."]
_AS_EXPRESSION = {
    "**/": "(?:[^/]+/)*",
    "**": ".*",
    "*": "[^/]*",
    "?": "[^/]",
    "[ab]": "[ab]",
    "[!a]": "[^a/]",
}


@settings(max_examples=1000)
@given(pattern=st.lists(st.sampled_from(_PIECES), max_size=8).map("".join), data=st.data())
def test_a_glob_matches_what_its_regular_expression_would(
    pattern: str, data: st.DataObject
) -> None:
    tokens = re.findall(r"\*\*/|\*\*|\[!?\w+\]|.", pattern)
    expression = "".join(_AS_EXPRESSION.get(token) or re.escape(token) for token in tokens)
    for name in data.draw(st.lists(st.text("ab/.\n", max_size=8), max_size=8)):
        assert matches(name, pattern) == (re.fullmatch(expression, name, re.DOTALL) is not None)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", ["*a", "**a", "**/", "**/*", "*[!b]", "?*", "*?a"])
def test_a_glob_does_not_backtrack(piece: str) -> None:
    """A regular expression would take years."""
    for name in ("a" * 250, "a/" * 120 + "a"):
        assert not matches(name, piece * 30 + "b")
        assert not matches(name, "**/" + piece * 30 + "b")


@pytest.mark.timeout(60)
def test_a_glob_that_is_longer_than_any_name_is_refused() -> None:
    with pytest.raises(InputError, match=r"^\[{100}…: a name has at most 4096 characters$"):
        is_glob("[" * 1_000_000)


@pytest.mark.parametrize("path", ["a/" * 3000, "a/" * 900, "x" * 5000])
def test_a_path_that_is_too_long_or_too_deep_is_one_line(tmp_path: Path, path: str) -> None:
    for use in (storage.exists, storage.read_bytes, lambda uri: storage.write_bytes(uri, b"")):
        with pytest.raises(InputError, match="is not a file name") as refused:
            use(f"{tmp_path}/{path}")
        assert len(str(refused.value)) < 300


def test_a_special_file_is_neither_opened_nor_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
    (tmp_path / "link").symlink_to("pipe")
    for place in (tmp_path / "pipe", tmp_path / "socket", tmp_path / "link", Path("/dev/zero")):
        with pytest.raises(InputError, match="is a pipe, a socket or a device"):
            storage.read_bytes(str(place))
        assert not storage.exists(str(place))
    assert storage.list_files(str(tmp_path), ("",)) == []


def test_a_huge_control_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "job.json").open("wb") as file:
        file.truncate(10 * 2**30)
    with pytest.raises(InputError, match=r"has 10,737,418,240 bytes"):
        storage.read_bytes(str(tmp_path / "job.json"))


def test_folders_that_link_to_each_other_are_refused_soon(tmp_path: Path) -> None:
    for name in range(9):  # 9! paths, none of which leads back
        for other in range(9):
            (tmp_path / str(name)).mkdir(exist_ok=True)
            (tmp_path / str(name) / f"to-{other}").symlink_to(tmp_path / str(other))
    with pytest.raises(InputError, match="more than 10000 links to folders lie below it"):
        storage.list_place(str(tmp_path))
