"""Files read by ranges of bytes, which may be fetched ahead, and in few requests."""

from __future__ import annotations

import io
import threading
from abc import abstractmethod
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO, NamedTuple

# Fetched along with its neighbours, for a request takes as long as about a megabyte does.
_GAP_BYTES = 256 * 1024


class ByteRange(NamedTuple):
    start: int
    stop: int


_Held = list[tuple[ByteRange, memoryview]]


def joined(ranges: Iterable[ByteRange]) -> list[ByteRange]:
    """Ranges that hold all of these, in order; those that nearly touch are one.

    What is none, as a damaged footer may name it, is left out.
    """
    found: list[ByteRange] = []
    for each in sorted(each for each in ranges if 0 <= each.start < each.stop):
        if found and each.start <= found[-1].stop + _GAP_BYTES:
            found[-1] = ByteRange(found[-1].start, max(found[-1].stop, each.stop))
        else:
            found.append(each)
    return found


class RangeFile(io.RawIOBase):
    """A file for reading at any position, of which a subclass reads ranges."""

    def __init__(self, n_bytes: int) -> None:
        self._n_bytes = n_bytes
        self._at = 0

    @abstractmethod
    def read_range(self, start: int, stop: int) -> bytes | memoryview:
        """The bytes from `start` to `stop`, which lie in the file and are one at least."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._n_bytes}
        self._at = base[whence] + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        stop = min(self._at + len(buffer), self._n_bytes)
        if stop <= self._at:
            return 0
        content = self.read_range(self._at, stop)
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


class Fetched(RangeFile):
    """A file of which some ranges are in memory; all else is read when it is asked for."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file.seek(0, io.SEEK_END))
        self._file = file
        self._lock = threading.Lock()
        self._held: _Held = []

    def in_turn(self, steps: Iterable[Sequence[ByteRange]]) -> Generator[None, None, None]:
        """Hold the ranges of each step in its turn, while a thread fetches those of the next.

        The thread has ended when this is exhausted, closed or has raised.
        """
        with ThreadPoolExecutor(1, "fetching") as pool:
            following: Future[_Held] | None = None
            for step in (*steps, None):
                ready = following
                following = None if step is None else pool.submit(self._fetch, step)
                if ready is not None:
                    self._held = ready.result()
                    yield

    def _fetch(self, ranges: Sequence[ByteRange]) -> _Held:
        return [(each, memoryview(self._read_file(*each))) for each in joined(ranges)]

    def read_range(self, start: int, stop: int) -> bytes | memoryview:
        for held, content in self._held:
            if held.start <= start and stop <= held.stop:
                return content[start - held.start : stop - held.start]
        return self._read_file(start, stop)

    def _read_file(self, start: int, stop: int) -> bytes:
        with self._lock:
            self._file.seek(start)
            return self._file.read(stop - start)
