"""Score BM25's candidates with the teacher, a real reranker that is not part of the project."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from distillation.searches import Searches

from worker.engine.scorer import PairWindow, Scorer

N_DOCUMENTS = 8
_FROM_FIRST, _N_FIRST = 4, 10  # so many wrong documents of BM25's first ones, the rest from below
_MAX_LENGTH = 128
_WINDOW_QUERIES = 100


@dataclass(frozen=True)
class TeacherScores:
    """The teacher's logits for the first training queries, both (n_queries, N_DOCUMENTS).

    `documents[n]` are numbers of documents; the right one of query `n` comes first.
    """

    documents: np.ndarray
    logits: np.ndarray


def teacher_scores(
    teacher: Path, cache: Path, searches: Searches, documents: list[str], n_queries: int
) -> TeacherScores:
    """Return scores of the answer to each of the first queries and of some of its candidates.

    They are kept in files under `cache`, so that an interrupted run continues.
    """
    cache.mkdir(parents=True, exist_ok=True)
    parts = []
    scorer: Scorer | None = None
    for start in range(0, n_queries, _WINDOW_QUERIES):
        path = cache / f"{start:06d}.npz"
        if not path.exists():
            scorer = scorer or Scorer.load(teacher, precision="bf16", max_length=_MAX_LENGTH)
            rows = range(start, min(start + _WINDOW_QUERIES, n_queries))
            chosen = [choose(searches.right[n], searches.candidates[n], n) for n in rows]
            window = PairWindow(
                [searches.queries[n] for n in rows for _ in range(N_DOCUMENTS)],
                [
                    text
                    for n, numbers in zip(rows, chosen, strict=True)
                    for text in (searches.answers[n], *(documents[j] for j in numbers[1:]))
                ],
            )
            logits = next(iter(scorer.score([window]))).logits.reshape(-1, N_DOCUMENTS)
            np.savez(path, documents=np.array(chosen), logits=logits)
            print(f"teacher: {rows.stop}/{n_queries} queries", flush=True)
        parts.append(np.load(path))
    return TeacherScores(
        np.concatenate([part["documents"] for part in parts]),
        np.concatenate([part["logits"] for part in parts]),
    )


def choose(right: int, candidates: np.ndarray, seed: int) -> list[int]:
    """Return the right document and wrong ones: half of BM25's first ones, half from below."""
    rng = random.Random(seed)
    wrong = [int(j) for j in candidates if j != right]
    n_below = N_DOCUMENTS - 1 - _FROM_FIRST
    return [
        right,
        *rng.sample(wrong[:_N_FIRST], _FROM_FIRST),
        *rng.sample(wrong[_N_FIRST:], n_below),
    ]
