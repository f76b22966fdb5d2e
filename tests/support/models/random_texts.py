"""Random pairs of texts for the tests of encoders, and the tokenizers that these are tried with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.support.models.vocabularies import (
    CORPUS,
    modernbert_tokenizer,
    qwen_tokenizer,
    unigram,
    wordpiece,
)
from worker.engine.batches.pairs import EncodedWindow
from worker.engine.values import PairWindow

TOKENIZERS: dict[str, Callable[[], Any]] = {
    "bert": wordpiece,
    "xlm-roberta": unigram,
    "modernbert": modernbert_tokenizer,
    "qwen": qwen_tokenizer,
}
words = st.sampled_from([*" ".join(CORPUS).split(), "<pad>", "[SEP]", "</s>", "yes", "🙂"])
texts = st.one_of(
    st.lists(words, max_size=60).map(" ".join),
    st.text(max_size=30),
    st.sampled_from(["", " ", "a", "  two  spaces "]),
)
pairs = st.lists(st.tuples(texts, texts), min_size=1, max_size=8)


def rows(window: EncodedWindow) -> list[list[int]]:
    """Return the ids of each input row."""
    distinct = np.split(window.ids, window.starts[1:])
    return [distinct[pair].tolist() for pair in window.pair_of_row]


def window_of(pairs: list[tuple[str, str]]) -> PairWindow:
    return PairWindow([query for query, _ in pairs], [document for _, document in pairs])
