"""Windows and batches of pairs for the tests of the engine."""

from __future__ import annotations

import random

import numpy as np

from tests.support.models.vocabularies import CORPUS
from worker.engine.batches.batching import TokenBatch
from worker.engine.batches.pairs import EncodedWindow
from worker.engine.values import PairWindow


def mixed_window() -> PairWindow:
    """Return ordinary texts mixed with truncated, empty, one-token, repeated and special ones."""
    documents = [*CORPUS[:5], "", "a", "tok", "<pad> and [PAD] in the text <pad>", " ".join(CORPUS)]
    queries = ["fast search engine", "a", "Wörterbuch", "long " * 80]
    crossed = [(query, document) for query in queries for document in documents]
    crossed += crossed[:7]
    return PairWindow([query for query, _ in crossed], [document for _, document in crossed])


def many_pairs(n: int = 200) -> PairWindow:
    rng = random.Random(0)
    words = " ".join(CORPUS).split()
    documents = [" ".join(rng.choices(words, k=rng.randint(4, 18))) for _ in range(n)]
    return PairWindow(["fast search engine"] * n, documents)


def batch_of(lengths: list[int]) -> TokenBatch:
    """Return a batch of pairs of these lengths, longest first, with tokens 0, 1, 2, …."""
    total = sum(lengths)
    window = EncodedWindow(
        ids=np.arange(total, dtype=np.int32),
        types=None,
        lengths=np.array(lengths),
        truncated=np.zeros(len(lengths), dtype=bool),
        pair_of_row=np.arange(len(lengths)),
    )
    return TokenBatch.of(window, np.arange(len(lengths)))
