"""A pair's bits do not depend on its batch, its window or the budget, in fp32 and in bf16."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.models.vocabularies import CORPUS
from worker.engine.kernels.precision import Precision
from worker.engine.scorer import PairWindow, Scorer

pytestmark = pytest.mark.slow

PACKED = (
    "bert",
    "bert-gelu-new",
    "xlm-roberta",
    "modernbert",
    "modernbert-local-last",
    "modernbert-mean",
    "gte",
    "mpnet",
    "deberta",
)


def pairs_of_many_lengths(n: int) -> list[tuple[str, str]]:
    rng = random.Random(0)
    words = " ".join(CORPUS).split()
    return [(rng.choice(words), " ".join(rng.choices(words, k=i % 60))) for i in range(n)]


def score(scorer: Scorer, pairs: list[tuple[str, str]], window_size: int) -> dict[object, float]:
    windows = (pairs[i : i + window_size] for i in range(0, len(pairs), window_size))
    scores = scorer.score(
        PairWindow([query for query, _ in window], [document for _, document in window])
        for window in windows
    )
    logits = np.concatenate([scored.logits for scored in scores])
    return dict(zip(pairs, logits.tolist(), strict=True))


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("name", PACKED)
def test_bits_do_not_depend_on_the_batch(
    name: str, precision: Precision, n_threads: int, checkpoints: dict[str, Path]
) -> None:
    torch.set_num_threads(n_threads)  # the fixture `one_thread` restores it
    pairs = pairs_of_many_lengths(60)
    # Loading takes seconds for thousands of tokens, because the tokenizer is tried at the limit.
    load = partial(Scorer.load, checkpoints[name], precision=precision, max_length=256)
    whole = score(load(), pairs, len(pairs))
    shuffled = random.Random(1).sample(pairs, len(pairs))
    for budget, window_size in ((1, 60), (300, 23), (100_000, 40)):
        scorer = load(max_batch_tokens=budget)
        assert scorer.info.deterministic
        assert score(scorer, shuffled, window_size) == whole


def test_padded_models_do_not_promise_determinism(checkpoints: dict[str, Path]) -> None:
    assert not Scorer.load(checkpoints["megatron-bert"]).info.deterministic
