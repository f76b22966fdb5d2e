"""The distinct pairs of a window, so that equal texts and equal pairs are computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from worker.engine.batches.ragged import exclusive_cumsum
from worker.engine.batches.segments import Prefixes
from worker.engine.values import PairWindow

KeyT = TypeVar("KeyT")


@dataclass(frozen=True)
class EncodedWindow:
    """The distinct pairs of a window as ragged arrays.

    Attributes:
        ids: int32 (total tokens,), the pairs' ids one after the other.
        types: uint8 like `ids`, or None if the model is given no token types.
        lengths: int64 (distinct pairs,).
        truncated: bool (distinct pairs,).
        pair_of_row: int64 (rows of the window,), the distinct pair of each row.
        prefixes: what pairs share, for a model that computes it once.
    """

    ids: np.ndarray
    types: np.ndarray | None
    lengths: np.ndarray
    truncated: np.ndarray
    pair_of_row: np.ndarray
    prefixes: Prefixes | None = None

    @property
    def starts(self) -> np.ndarray:
        """The first token of each pair, int64 (distinct pairs,)."""
        return exclusive_cumsum(self.lengths)

    @property
    def n_shared(self) -> np.ndarray:
        """The tokens of each pair's shared prefix, int64 (distinct pairs,)."""
        return np.zeros_like(self.lengths) if self.prefixes is None else self.prefixes.shared

    def n_computed(self, pairs: np.ndarray) -> int:
        """Return the tokens that a batch of some pairs computes, without padding."""
        if self.prefixes is not None:
            return self.prefixes.n_computed(pairs)
        return int(self.lengths[pairs].sum())

    @classmethod
    def of_ones(cls, n_pairs: int, length: int) -> EncodedWindow:
        """Return equal pairs to try a device with; token 1 is in every vocabulary."""
        return cls(
            ids=np.ones(n_pairs * length, dtype=np.int32),
            types=None,
            lengths=np.full(n_pairs, length, dtype=np.int64),
            truncated=np.zeros(n_pairs, dtype=bool),
            pair_of_row=np.arange(n_pairs),
        )


@dataclass(frozen=True)
class DistinctPairs:
    """A window without repetition: its texts, and its pairs as indices into them.

    Attributes:
        prompts: the prompt of each query; a query with two prompts is there twice.
        title_chars: those of each document; a document with two titles is there twice.
    """

    queries: list[str]
    prompts: list[str | None]
    documents: list[str]
    title_chars: list[int]
    query_of_pair: np.ndarray
    document_of_pair: np.ndarray
    pair_of_row: np.ndarray

    @classmethod
    def of(cls, window: PairWindow) -> DistinctPairs:
        """Find the distinct texts and pairs of a window."""
        prompts: list[str | None]
        if window.prompts is None:
            queries, query_of_row = _distinct(window.queries)
            prompts = [None] * len(queries)
        else:
            both, query_of_row = _distinct(list(zip(window.queries, window.prompts, strict=True)))
            queries, prompts = [query for query, _ in both], [prompt for _, prompt in both]
        if window.title_chars is None:
            documents, document_of_row = _distinct(window.documents)
            title_chars = [0] * len(documents)
        else:
            titled, document_of_row = _distinct(
                list(zip(window.documents, window.title_chars, strict=True))
            )
            documents = [document for document, _ in titled]
            title_chars = [n_chars for _, n_chars in titled]
        return cls(queries, prompts, documents, title_chars, *paired(query_of_row, document_of_row))


def paired(
    query_of_row: np.ndarray, document_of_row: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the query and the document of each distinct pair, and the pair of each row."""
    keys = query_of_row * (1 + document_of_row.max(initial=0)) + document_of_row
    _, first, pair_of_row = np.unique(keys, return_index=True, return_inverse=True)
    return query_of_row[first], document_of_row[first], pair_of_row


def _distinct(texts: Sequence[KeyT]) -> tuple[list[KeyT], np.ndarray]:
    index: dict[KeyT, int] = {}
    rows = np.fromiter((index.setdefault(text, len(index)) for text in texts), np.int64, len(texts))
    return list(index), rows
