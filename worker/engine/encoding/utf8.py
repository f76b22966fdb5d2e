"""Texts as the bytes of UTF-8, so that code outside Python reads them without a loop."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from worker.engine.batches.ragged import ragged_arange


@dataclass(frozen=True)
class Utf8:
    """Text i is `content[bounds[i] : bounds[i + 1]]`.

    Attributes:
        bounds: int64 (texts + 1,).
        content: uint8.
    """

    bounds: np.ndarray
    content: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[str]) -> Utf8:
        """Return the bytes of texts, without a copy where the sequence holds them.

        A sequence that does has a method `utf8`, which returns bounds and content.
        """
        held = getattr(texts, "utf8", None)
        if held is not None:
            return cls(*held())
        encoded = [text.encode() for text in texts]
        bounds = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), out=bounds[1:])
        return cls(bounds, np.frombuffer(b"".join(encoded), np.uint8))

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def take(self, chosen: np.ndarray) -> Utf8:
        """Return some of the texts, by their positions."""
        starts, lengths = self.bounds[chosen], np.diff(self.bounds)[chosen]
        bounds = np.append(0, np.cumsum(lengths))
        return Utf8(bounds, self.content[ragged_arange(starts, lengths)])

    def distinct(self, library: ctypes.CDLL) -> tuple[np.ndarray, np.ndarray]:
        """Find equal texts.

        Returns:
            int64 (texts,), the number of each text among the distinct ones.
            int64 (distinct texts,), where each of them comes first; these rise.
        """
        numbers, first = (np.empty(len(self), np.int64) for _ in range(2))
        n = library.rankmill_distinct_texts(
            self.content.ctypes.data,
            self.bounds.ctypes.data,
            len(self),
            numbers.ctypes.data,
            first.ctypes.data,
        )
        if n < 0:
            raise MemoryError("no memory to compare the texts of a window")
        return numbers, first[:n]
