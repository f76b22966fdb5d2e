"""Windows of pairs that the engine's tests score."""

from __future__ import annotations

import random

from tests.support.models.vocabularies import CORPUS
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
