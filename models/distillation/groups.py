"""Make training groups: one query, its right document, wrong ones of BM25, and their targets.

A model of this size learns the training packages by heart. So that it learns to compare texts
instead, every group is changed at random: words that query and answer share become other words,
some words are dropped, some documents grow by another one or start at a later position.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from distillation.bm25 import TokenBm25
from distillation.fast_bert import Ids, Pair
from distillation.teacher import N_DOCUMENTS, TeacherScores
from train_demo_reranker import SPECIAL, VOCAB_SIZE

_N_FIRST = 15  # half of the wrong documents are of BM25's first ones
_SWAPPED_GROUPS, _SWAPPED_WORDS, _SWAP_RANKS = 0.5, 0.5, 400
_DROPPED_QUERY, _DROPPED_DOCUMENT = 0.05, 0.10
_CUT_OUT, _CUT_TOKENS, _MIN_DOCUMENT = 0.15, (4, 12), 30
_GROWN_GROUPS, _SHIFTED_GROUPS = 0.03, 0.3


@dataclass(frozen=True)
class Group:
    """Pairs of one query, and the logits whose softmax is the target; the right pair is first."""

    pairs: list[Pair]
    target: np.ndarray


@dataclass(frozen=True)
class Encoded:
    """Searches as token ids; `candidates[n]` and the teacher's scores belong to query `n`.

    `share` of the groups are of these searches, `from_teacher` of them with the teacher's scores.
    The target is the sum of 1 for the right document, BM25's share and the teacher's logit, each
    times its weight.
    """

    queries: list[Ids]
    answers: list[Ids]
    right: list[int]
    candidates: np.ndarray
    teacher: TeacherScores
    share: float
    from_teacher: float
    label_weight: float
    bm25_weight: float
    teacher_weight: float


class Groups:
    """An endless supply of training groups."""

    def __init__(
        self,
        searches: list[Encoded],
        documents: list[Ids],
        bm25: TokenBm25,
        frequency: np.ndarray,
        max_length: int,
        seed: int,
    ) -> None:
        self._searches, self._documents, self._bm25 = searches, documents, bm25
        self._max_length = max_length
        self._rng, self._np_rng = random.Random(seed), np.random.default_rng(seed)
        self._by_frequency = np.argsort(-frequency, kind="stable")
        self._rank = np.argsort(self._by_frequency)
        self._waiting: list[list[int]] = [[] for _ in searches]

    def next(self) -> Group:
        """Return the next group, of the teacher or of a query whose turn it is."""
        shares = [some.share for some in self._searches]
        k = self._rng.choices(range(len(shares)), shares)[0]
        some = self._searches[k]
        if self._rng.random() < some.from_teacher:
            n = self._rng.randrange(len(some.teacher.logits))
            wrong = some.teacher.documents[n, 1:].tolist()
            return self._group(some, n, wrong, some.teacher.logits[n])
        if not self._waiting[k]:
            self._waiting[k] = self._rng.sample(range(len(some.right)), len(some.right))
        n = self._waiting[k].pop()
        candidates = [int(j) for j in some.candidates[n] if j != some.right[n]]
        n_first = N_DOCUMENTS // 2
        wrong = self._rng.sample(candidates[:_N_FIRST], n_first)
        wrong += self._rng.sample(candidates[_N_FIRST:], N_DOCUMENTS - 1 - n_first)
        return self._group(some, n, wrong, None)

    def _group(self, some: Encoded, n: int, wrong: list[int], teacher: np.ndarray | None) -> Group:
        query = some.queries[n]
        documents = [some.answers[n], *(self._documents[j] for j in wrong)]
        if teacher is None and self._rng.random() < _CUT_OUT and len(documents[0]) > _MIN_DOCUMENT:
            query, documents[0] = self._cut_out(documents[0])
        if self._rng.random() < _SWAPPED_GROUPS:
            query, *documents = self._swapped([query, *documents])
        query = self._dropped(query, _DROPPED_QUERY)
        documents = [self._dropped(ids, _DROPPED_DOCUMENT) for ids in documents]
        room = self._max_length - 3 - len(query)
        if self._rng.random() < _GROWN_GROUPS:
            documents = [self._grown(ids) for ids in documents]
        documents = [ids[:room] for ids in documents]
        target = some.bm25_weight * np.array([self._bm25.share(query, d) for d in documents])
        target[0] += some.label_weight
        if teacher is not None:
            target += some.teacher_weight * teacher
        room -= max(map(len, documents))
        shift = self._rng.randint(0, room) if self._rng.random() < _SHIFTED_GROUPS else 0
        return Group([Pair(query, ids, shift) for ids in documents], target.astype(np.float32))

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

    def _grown(self, ids: Ids) -> Ids:
        """Return the document with another one before or after it."""
        other = self._rng.choice(self._documents)
        return np.concatenate([ids, other] if self._rng.random() < 0.5 else [other, ids])
