from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import IO

import pytest

from rankmill import storage
from rankmill.errors import StorageRefused, StorageUnavailable


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


def test_nothing_stands_under_the_name_before_all_is_written(tmp_path: Path) -> None:
    target = tmp_path / "file"

    def write(file: IO[bytes]) -> None:
        file.write(b"x" * 10)
        file.flush()
        assert not target.exists()

    published = storage.publish(str(target), write)
    assert target.read_bytes() == b"x" * 10
    assert published.n_bytes == 10
    assert published.sha256 == hashlib.sha256(b"x" * 10).hexdigest()


def test_a_full_disk_is_said_and_leaves_nothing() -> None:
    name = f"rankmill-full-test-{os.getpid()}-"
    with pytest.raises(StorageRefused, match="the disk is full"):
        storage.publish(f"/dev/shm/{name}", _raise_enospc)
    assert not [each for each in os.listdir("/dev/shm") if name in each]


def _raise_enospc(file: IO[bytes]) -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        full.write(b"x")


def test_a_file_in_the_way_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises((StorageRefused, StorageUnavailable), match="cannot write"):
        storage.write_bytes(str(tmp_path / "file" / "below"), b"")


def test_temporaries_of_killed_writers_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".part.abc.rankmill-tmp").touch()
    (tmp_path / "part").touch()
    storage.remove_unfinished(str(tmp_path))
    assert storage.names(str(tmp_path)) == ["part"]
