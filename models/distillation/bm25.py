"""Compute BM25 on token ids, for texts that are changed while a model trains."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from train_demo_reranker import SPECIAL

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from package_search import STOP_WORDS

_K1, _B = 1.2, 0.75


class TokenBm25:
    """BM25 whose terms are token ids; stop words and punctuation count for nothing."""

    def __init__(self, tokenizer: Tokenizer, frequency: np.ndarray, n_documents: int) -> None:
        """Weigh ids by `frequency`, the number of documents that each id is in."""
        self._idf = np.log(1 + (n_documents - frequency + 0.5) / (frequency + 0.5))
        ignored = [tokenizer.token_to_id(word) for word in SPECIAL]
        for token, token_id in tokenizer.get_vocab().items():
            if token in STOP_WORDS or not any(map(str.isalnum, token)):
                ignored.append(token_id)
        self._idf[ignored] = 0
        self._mean_length = frequency[self._idf > 0].sum() / n_documents

    def share(self, query: np.ndarray, document: np.ndarray) -> float:
        """Return the document's score, as a share of the most that any document can have."""
        terms = np.unique(query)
        weights = self._idf[terms]
        counts = (document[None] == terms[:, None]).sum(1)
        length = (self._idf[document] > 0).sum() / self._mean_length
        saturated = counts / (counts + _K1 * (1 - _B + _B * length))
        return float((weights * saturated).sum() / (weights.sum() + 1e-6))
