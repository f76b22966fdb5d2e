"""Ranges fetched ahead: a read returns the file's bytes, from memory or storage."""

from __future__ import annotations

import io
import random
import threading

import pyarrow as pa
import pytest

from rankmill.errors import StorageUnavailable
from rankmill.storage.ranges import ByteRange, Fetched, joined
from tests.support.inputs import wait_for

KB = 1024


def test_ranges_with_a_small_gap_are_joined() -> None:
    ranges = [(900 * KB, 901 * KB), (0, 10), (10, 20), (200 * KB, 300 * KB), (15, 18)]
    assert joined(ByteRange(*each) for each in ranges) == [(0, 300 * KB), (900 * KB, 901 * KB)]


def test_impossible_ranges_are_left_out() -> None:
    ranges = [ByteRange(-5, 10), ByteRange(10, 5), ByteRange(7, 7), ByteRange(3, 4)]
    assert joined(ranges) == [(3, 4)]


def test_every_range_reads_the_files_bytes() -> None:
    content = random.Random(3).randbytes(3000 * KB)
    fetched = Fetched(io.BytesIO(content))
    steps = ([(0, 500 * KB), (1000 * KB, 1500 * KB)], [(2900 * KB, 4000 * KB)], [])
    turns = fetched.in_turn([[ByteRange(*each) for each in step] for step in steps])
    for n_turns in range(1, 5):
        assert (next(turns, "over") == "over") == (n_turns == 4)
        for start, size in (
            *((0, 10), (499 * KB, 1 * KB), (499 * KB, 2 * KB), (1200 * KB, 900 * KB)),
            *((2990 * KB, 5), (2999 * KB, 5 * KB), (3000 * KB, 5)),
        ):
            fetched.seek(start)
            assert fetched.read(size) == content[start : start + size]
            assert fetched.tell() == min(start + size, len(content))
    assert fetched.seek(-3, io.SEEK_END) == 3000 * KB - 3 and fetched.read() == content[-3:]


def test_arrow_gets_fetched_ranges_without_a_copy() -> None:
    content = random.Random(3).randbytes(3 * KB)
    fetched = Fetched(io.BytesIO(content))
    turns = fetched.in_turn([[ByteRange(KB, 2 * KB)]])
    next(turns)
    with pa.PythonFile(fetched, "r") as file:
        assert file.read_at(KB, 3 * KB) == content[3 * KB :]
        file.seek(KB + 10)
        buffers = [file.read_buffer(500), file.read_buffer(KB)]  # the second leaves the range
        assert [each.to_pybytes() for each in buffers] == [
            content[KB + 10 : KB + 510],
            content[KB + 510 : 2 * KB + 510],
        ]
    fetched.seek(KB)
    first, second = fetched.read_buffer(5), fetched.read_buffer(5)
    assert isinstance(first, memoryview) and isinstance(second, memoryview)
    assert first.obj is second.obj
    fetched.seek(3 * KB)
    assert bytes(fetched.read_buffer(5)) == b""


class Watched(io.BytesIO):
    """A file that records its reads and fails where a test wants it."""

    def __init__(self, content: bytes, fails_at: int | None = None) -> None:
        super().__init__(content)
        self.fails_at = fails_at
        self.starts: list[int] = []

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() == self.fails_at:
            raise StorageUnavailable("not now")
        self.starts.append(self.tell())
        return super().read(size)


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("fetching")]


STEPS = [[ByteRange(at * KB, at * KB + 20), ByteRange(at * KB + 10, at * KB + 90)] for at in (0, 1)]


def test_each_range_is_fetched_once_and_ahead() -> None:
    file = Watched(bytes(2 * KB))
    fetched = Fetched(file)
    turns = fetched.in_turn(STEPS)
    next(turns)
    wait_for(lambda: file.starts == [0, KB], 10)
    for start in range(0, 90, 10):
        fetched.seek(start)
        assert len(fetched.read(10)) == 10
    assert list(turns) == [None] and file.starts == [0, KB]
    assert threads() == []


def test_a_failed_fetch_is_raised_in_its_turn_and_ends_the_thread() -> None:
    turns = Fetched(Watched(bytes(2 * KB), fails_at=KB)).in_turn(STEPS)
    next(turns)
    with pytest.raises(StorageUnavailable, match="not now"):
        next(turns)
    assert threads() == []


def test_stopping_early_leaves_no_thread() -> None:
    turns = Fetched(Watched(bytes(2 * KB))).in_turn(STEPS)
    next(turns)
    turns.close()
    assert threads() == []
