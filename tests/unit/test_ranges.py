"""Ranges fetched ahead: what is read is what the file holds, wherever it comes from."""

from __future__ import annotations

import io
import random

from rankmill.ranges import ByteRange, Fetched, joined

KB = 1024


def test_ranges_that_nearly_touch_become_one() -> None:
    ranges = [(900 * KB, 901 * KB), (0, 10), (10, 20), (200 * KB, 300 * KB), (15, 18)]
    assert joined(ByteRange(*each) for each in ranges) == [(0, 300 * KB), (900 * KB, 901 * KB)]


def test_what_a_damaged_footer_names_is_left_out() -> None:
    ranges = [ByteRange(-5, 10), ByteRange(10, 5), ByteRange(7, 7), ByteRange(3, 4)]
    assert joined(ranges) == [(3, 4)]


def test_what_is_read_is_what_the_file_holds() -> None:
    content = random.Random(3).randbytes(3000 * KB)
    fetched = Fetched(io.BytesIO(content))
    for ranges in ([(0, 500 * KB), (1000 * KB, 1500 * KB)], [(2900 * KB, 4000 * KB)], []):
        fetched.fetch(ByteRange(*each) for each in ranges)
        for start, size in (
            *((0, 10), (499 * KB, 1 * KB), (499 * KB, 2 * KB), (1200 * KB, 900 * KB)),
            *((2990 * KB, 5), (2999 * KB, 5 * KB), (3000 * KB, 5)),
        ):
            fetched.seek(start)
            assert fetched.read(size) == content[start : start + size]
            assert fetched.tell() == min(start + size, len(content))
    assert fetched.seek(-3, io.SEEK_END) == 3000 * KB - 3 and fetched.read() == content[-3:]


def test_a_range_is_fetched_once() -> None:
    class Counting(io.BytesIO):
        n_reads = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self.n_reads += 1
            return super().read(size)

    file = Counting(bytes(1000))
    fetched = Fetched(file)
    fetched.fetch([ByteRange(100, 200), ByteRange(150, 300)])
    for start in range(100, 300, 10):
        fetched.seek(start)
        assert len(fetched.read(10)) == 10
    assert file.n_reads == 1
