"""Score BM25's candidates with the teacher, a real reranker that is not part of the project."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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
    teacher: Path,
    cache: Path,
    queries: list[str],
    documents: list[str],
    right: list[int],
    candidates: np.ndarray,
) -> TeacherScores:
    """Return scores of each query's right document and of some of its candidates.

    They are kept in files under `cache`, so that an interrupted run continues.
    """
    cache.mkdir(parents=True, exist_ok=True)
    parts = []
    scorer: Scorer | None = None
    for start in range(0, len(queries), _WINDOW_QUERIES):
        path = cache / f"{start:06d}.npz"
        if not path.exists():
            scorer = scorer or Scorer.load(teacher, precision="bf16", max_length=_MAX_LENGTH)
            rows = range(start, min(start + _WINDOW_QUERIES, len(queries)))
            chosen = [choose(right[n], candidates[n], n) for n in rows]
            window = PairWindow(
                [queries[n] for n in rows for _ in range(N_DOCUMENTS)],
                [documents[j] for some in chosen for j in some],
            )
            logits = next(iter(scorer.score([window]))).logits.reshape(-1, N_DOCUMENTS)
            np.savez(path, documents=np.array(chosen), logits=logits)
            print(f"teacher: {rows.stop}/{len(queries)} queries", flush=True)
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
