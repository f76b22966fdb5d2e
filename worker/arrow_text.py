"""Read text columns in Arrow's memory, without a copy, and make strings only when needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import pyarrow as pa

from rankmill.contract.plan import Columns


def joined(column: pa.ChunkedArray) -> pa.Array:
    """Return the column as one array; Arrow's `combine_chunks` would copy even a single chunk."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def text_bytes(texts: pa.LargeStringArray) -> tuple[np.ndarray, np.ndarray]:
    """Return the bytes of texts without a copy: text i is `content[bounds[i] : bounds[i + 1]]`.

    Returns:
        bounds: int64 (n + 1,).
        content: uint8.
    """
    _, bounds, content = texts.buffers()
    if not len(texts):
        return np.zeros(1, np.int64), np.empty(0, np.uint8)
    bounds = np.frombuffer(bounds, np.int64)[texts.offset :][: len(texts) + 1]
    return bounds, np.frombuffer(content or b"", np.uint8)


def prompts_of(table: pa.Table, columns: Columns) -> list[str | None] | None:
    """Return the prompt of each row, None for one that is missing or blank; None without any."""
    if columns.prompt is None:
        return None
    prompts = table[columns.prompt].cast(pa.large_string()).to_pylist()
    return [prompt if prompt and prompt.strip() else None for prompt in prompts]


class Texts(Sequence[str]):
    """A column without nulls as a sequence of strings, each made when it is read.

    `pyarrow.array(texts)` returns the column itself at no cost.
    """

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._array = joined(column.cast(pa.large_string()))

    def __len__(self) -> int:
        return len(self._array)

    def __iter__(self) -> Iterator[str]:
        return iter(self._array.to_pylist())

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return list(self._array[at].to_pylist())
        return str(self._array[at])

    def utf8(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the bytes of all texts, as `text_bytes`."""
        return text_bytes(self._array)

    def __arrow_array__(self, type: pa.DataType | None = None) -> pa.Array:
        return self._array if type is None else self._array.cast(type)
