"""Byte ranges of a file that are fetched before they are asked for, in few requests."""

from __future__ import annotations

import io
import threading
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


class Fetched(io.RawIOBase):
    """A file of which some ranges are in memory; all else is read when it is asked for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._at = 0
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

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            with self._lock:
                self._at = self._file.seek(offset, whence)
        else:
            self._at = offset + (self._at if whence == io.SEEK_CUR else 0)
        return self._at

    def readinto(self, buffer: Any) -> int:
        content = self._read(len(buffer))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def _read(self, size: int) -> bytes | memoryview:
        for (start, stop), content in self._held:
            if start <= self._at and self._at + size <= stop:
                return content[self._at - start :][:size]
        return self._read_file(self._at, self._at + size)

    def _read_file(self, start: int, stop: int) -> bytes:
        with self._lock:
            self._file.seek(start)
            return self._file.read(stop - start)
