"""Searches to train on: a short description, or a sentence cut out of a long one."""

from __future__ import annotations

import random
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from train_demo_reranker import SEED

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from package_search import N_CANDIDATES, PackageSearch, bm25_candidates

_SENTENCE_WORDS, _REST_CHARS, _N_FOUND = (6, 40), 100, 100
_ASKED, _OPENINGS = 0.5, (
    "what is", "what are", "how to", "how does", "how do", "is there", "are there any",
    "can", "which", "why does", "what is known about", "papers on", "describe", "find",
    "information about", "has anyone", "what methods are there for", "i am looking for",
)  # fmt: skip


@dataclass(frozen=True)
class Searches:
    """Queries, the text that answers each, its number among the documents, and BM25's best."""

    queries: list[str]
    answers: list[str]
    right: list[int]
    candidates: np.ndarray


def descriptions(search: PackageSearch, right: list[int]) -> Searches:
    """Return the searches of the task itself: a short description looks for its long one."""
    queries = [search.queries[i] for i in right]
    candidates, _ = bm25_candidates(search.documents, queries)
    return Searches(queries, [search.documents[i] for i in right], right, candidates)


def sentences(search: PackageSearch, numbers: list[int], n_queries: int) -> Searches:
    """Return searches of plain English: a sentence of a description looks for the rest of it.

    Half of them open like a question. No other candidate has the same sentence.
    """
    rng = random.Random(SEED)
    queries, answers, right, cut = [], [], [], []
    for i in numbers:
        document = search.documents[i]
        found = [
            sentence
            for sentence in re.split(r"(?<=[.!?:;])\s+", document)
            if _SENTENCE_WORDS[0] <= len(sentence.split()) <= _SENTENCE_WORDS[1]
            and len(document) - len(sentence) >= _REST_CHARS
        ]
        if not found or len(queries) == n_queries:
            continue
        sentence = rng.choice(found)
        opening = rng.choice(_OPENINGS) + " " if rng.random() < _ASKED else ""
        queries.append(opening + sentence)
        answers.append(document.replace(sentence, " "))
        right.append(i)
        cut.append(sentence)
    found, _ = bm25_candidates(search.documents, queries, k=_N_FOUND)
    kept, candidates = [], []
    for n, sentence in enumerate(cut):
        others = [j for j in found[n] if j == right[n] or sentence not in search.documents[j]]
        if len(others) >= N_CANDIDATES and right[n] in others[:N_CANDIDATES]:
            kept.append(n)
            candidates.append(others[:N_CANDIDATES])
    return Searches(
        [queries[n] for n in kept],
        [answers[n] for n in kept],
        [right[n] for n in kept],
        np.array(candidates),
    )
