"""Read files by ranges of bytes, ahead of their use and in few requests."""

from __future__ import annotations

import io
import threading
from abc import abstractmethod
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO, NamedTuple

# A gap that is fetched with its neighbours: a request takes as long as about a megabyte does.
_GAP_BYTES = 256 * 1024


class ByteRange(NamedTuple):
    """The bytes from `start` to before `stop`."""

    start: int
    stop: int


_Held = list[tuple[ByteRange, memoryview]]


def joined(ranges: Iterable[ByteRange]) -> list[ByteRange]:
    """Return ordered ranges that cover all of these; neighbours with a small gap become one.

    Impossible ranges, as a damaged footer may name them, are left out.
    """
    covering: list[ByteRange] = []
    for piece in sorted(piece for piece in ranges if 0 <= piece.start < piece.stop):
        if covering and piece.start <= covering[-1].stop + _GAP_BYTES:
            covering[-1] = ByteRange(covering[-1].start, max(covering[-1].stop, piece.stop))
        else:
            covering.append(piece)
    return covering


class RangeFile(io.RawIOBase):
    """A readable, seekable file over a subclass's `read_range`."""

    def __init__(self, n_bytes: int) -> None:
        self._n_bytes = n_bytes
        self._at = 0

    @abstractmethod
    def read_range(self, start: int, stop: int) -> bytes | memoryview:
        """Return the bytes from `start` to before `stop`: at least one, all in the file."""

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set and return the position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._n_bytes}
        self._at = base[whence] + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer and return the number of bytes, 0 at the end."""
        content = self.read_buffer(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes: all that there are, up to `size` if it is not negative."""
        return bytes(self.read_buffer(self._n_bytes if size is None or size < 0 else size))

    def read_buffer(self, size: int) -> bytes | memoryview:
        """Return the next bytes as `read` does, without a copy of those that are in memory.

        pyarrow prefers this method to `read`.
        """
        stop = min(self._at + size, self._n_bytes)
        if stop <= self._at:
            return b""
        content = self.read_range(self._at, stop)
        self._at += len(content)
        return content


class Fetched(RangeFile):
    """A file with some ranges in memory; other ranges are read when they are requested."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file.seek(0, io.SEEK_END))
        self._file = file
        self._lock = threading.Lock()
        self._held: _Held = []

    def in_turn(self, steps: Iterable[Sequence[ByteRange]]) -> Generator[None, None, None]:
        """Keep the ranges of each step in turn, while a thread fetches those of the next step.

        The thread has ended when the generator is exhausted, closed or has raised.
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
        return [(piece, memoryview(self._read_file(*piece))) for piece in joined(ranges)]

    def read_range(self, start: int, stop: int) -> bytes | memoryview:
        """Return the bytes from memory, or read them from the file."""
        for held, content in self._held:
            if held.start <= start and stop <= held.stop:
                return content[start - held.start : stop - held.start]
        return self._read_file(start, stop)

    def _read_file(self, start: int, stop: int) -> bytes:
        with self._lock:
            self._file.seek(start)
            return self._file.read(stop - start)
