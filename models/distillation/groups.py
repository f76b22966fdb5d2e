"""Make training groups: one query, its right document, wrong ones of BM25, and their targets.

A model of this size learns the training packages by heart. So that it learns to compare texts
instead, every group is changed at random: words that query and answer share become other words,
some words are dropped, and some queries are a passage cut out of the answer.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from distillation.fast_bert import Ids, Pair
from distillation.teacher import N_DOCUMENTS, TeacherScores
from train_demo_reranker import SPECIAL, VOCAB_SIZE

FROM_TEACHER = 0.3  # share of the groups that the teacher has scored
LABEL_WEIGHT, BM25_WEIGHT, TEACHER_WEIGHT = 4.0, 0.7, 0.4
_N_FIRST = 15  # half of the wrong documents are of BM25's first ones
_CUT_OUT, _CUT_TOKENS, _MIN_DOCUMENT = 0.25, (4, 12), 30
_SWAPPED_GROUPS, _SWAPPED_WORDS, _SWAP_RANKS = 0.5, 0.5, 400
_DROPPED_QUERY, _DROPPED_DOCUMENT = 0.05, 0.10


@dataclass(frozen=True)
class Group:
    """Pairs of one query, and the logits whose softmax is the target; the right pair is first."""

    pairs: list[Pair]
    target: np.ndarray


class Groups:
    """An endless supply of training groups; `right[n]` and `candidates[n]` belong to query `n`."""

    def __init__(
        self,
        queries: list[Ids],
        documents: list[Ids],
        right: list[int],
        candidates: np.ndarray,
        bm25: np.ndarray,
        teacher: TeacherScores,
        frequency: np.ndarray,
        seed: int,
    ) -> None:
        self._queries, self._documents, self._right = queries, documents, right
        self._candidates, self._bm25, self._teacher = candidates, bm25, teacher
        self._rng, self._np_rng = random.Random(seed), np.random.default_rng(seed)
        self._by_frequency = np.argsort(-frequency, kind="stable")
        self._rank = np.argsort(self._by_frequency)
        self._waiting: list[int] = []

    def next(self) -> Group:
        """Return the next group, of the teacher or of a query whose turn it is."""
        if self._rng.random() < FROM_TEACHER:
            n = self._rng.randrange(len(self._teacher.logits))
            return self._group(n, self._teacher.documents[n].tolist(), self._teacher.logits[n])
        if not self._waiting:
            self._waiting = self._rng.sample(range(len(self._right)), len(self._right))
        n = self._waiting.pop()
        wrong = [int(j) for j in self._candidates[n] if j != self._right[n]]
        n_first = N_DOCUMENTS // 2
        first = self._rng.sample(wrong[:_N_FIRST], n_first)
        below = self._rng.sample(wrong[_N_FIRST:], N_DOCUMENTS - 1 - n_first)
        return self._group(n, [self._right[n], *first, *below], np.zeros(N_DOCUMENTS))

    def _group(self, n: int, numbers: list[int], teacher: np.ndarray) -> Group:
        query, documents = self._queries[n], [self._documents[j] for j in numbers]
        target = np.zeros(N_DOCUMENTS, dtype=np.float32)
        target[0] = LABEL_WEIGHT
        if self._rng.random() < _CUT_OUT and len(documents[0]) > _MIN_DOCUMENT:
            query, documents[0] = self._cut_out(documents[0])
        else:
            target += BM25_WEIGHT * self._standardized_bm25(n, numbers) + TEACHER_WEIGHT * teacher
        if self._rng.random() < _SWAPPED_GROUPS:
            query, *documents = self._swapped([query, *documents])
        query = self._dropped(query, _DROPPED_QUERY)
        return Group([(query, self._dropped(ids, _DROPPED_DOCUMENT)) for ids in documents], target)

    def _standardized_bm25(self, n: int, numbers: list[int]) -> np.ndarray:
        """Return BM25's scores in standard deviations; a document it missed has its lowest."""
        scores = dict(zip(self._candidates[n].tolist(), self._bm25[n], strict=True))
        lowest = self._bm25[n].min()
        standardized: np.ndarray = (
            np.array([scores.get(j, lowest) for j in numbers]) - self._bm25[n].mean()
        ) / (self._bm25[n].std() + 1e-6)
        return standardized

    def _cut_out(self, document: Ids) -> tuple[Ids, Ids]:
        """Return a passage of the document, and the rest."""
        n_tokens = self._rng.randrange(*_CUT_TOKENS)
        start = self._rng.randrange(len(document) - n_tokens)
        stop = start + n_tokens
        return document[start:stop], np.concatenate([document[:start], document[stop:]])

    def _swapped(self, texts: list[Ids]) -> list[Ids]:
        """Return the texts with some words of query and answer become others of like frequency."""
        shared = np.intersect1d(texts[0], texts[1])
        old = shared[self._np_rng.random(len(shared)) < _SWAPPED_WORDS]
        ranks = self._rank[old] + self._np_rng.integers(-_SWAP_RANKS, _SWAP_RANKS, len(old))
        becomes = np.arange(VOCAB_SIZE)
        becomes[old] = self._by_frequency[np.clip(ranks, len(SPECIAL), VOCAB_SIZE - 1)]
        return [becomes[ids] for ids in texts]

    def _dropped(self, ids: Ids, share: float) -> Ids:
        kept = ids[self._np_rng.random(len(ids)) >= share]
        return kept if len(kept) else ids
