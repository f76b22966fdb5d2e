"""Measure a model on the searches that it is chosen by."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from distillation.bm25 import TokenBm25
from distillation.fast_bert import Ids, Pair, logits
from distillation.searches import Searches
from transformers import BertForSequenceClassification


@torch.no_grad()
def dev_ndcg(
    model: BertForSequenceClassification,
    searches: Searches,
    documents: list[str],
    encode: Callable[[list[str], int], list[Ids]],
    bm25: TokenBm25,
    query_tokens: int,
) -> dict[str, float]:
    """Return the mean nDCG@10 of BM25's order and of the model's, over the same candidates.

    `encode(texts, n)` returns the first `n` token ids of each text.
    """
    max_length = model.config.max_position_embeddings
    sums = {"bm25": 0.0, "model": 0.0}
    queries = encode(searches.queries, query_tokens)
    for query, found, right, answer in zip(
        queries, searches.candidates, searches.right, searches.answers, strict=True
    ):
        texts = [answer if j == right else documents[j] for j in found]
        encoded = encode(texts, max_length - 3 - len(query))
        scores = {
            "bm25": np.array([bm25.share(query, ids) for ids in encoded]),
            "model": logits(model, [Pair(query, ids) for ids in encoded]).numpy(),
        }
        for name, values in scores.items():
            place = np.flatnonzero(found[np.argsort(-values, kind="stable")][:10] == right)
            sums[name] += 1 / math.log2(2 + place[0]) if place.size else 0.0
    return {name: round(total / len(queries), 4) for name, total in sums.items()}
