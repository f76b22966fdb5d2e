"""A card of two devices that `torch.cuda` knows, and miniature models to score on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.cuda.card import Card
from tests.support.cuda.runtime import install
from tests.support.models import decoders
from tests.support.models.checkpoints import BUILDERS, bert, modernbert, roberta
from tests.support.models.vocabularies import CORPUS
from tests.support.models.zoo import FAMILIES
from worker.engine.kernels.precision import Precision
from worker.engine.scorer import PairWindow, Scorer

# Lengths of two and of one pair, some longer than ModernBERT's windows.
TEXT = " ".join(CORPUS)
WINDOW = PairWindow(
    ["a fast search"] * 10, [TEXT[: 47 * (at // 2)] for at in range(8)] + [TEXT, TEXT[3:]]
)
SHORT = {"max_position_embeddings": 256}
MODELS: dict[str, Callable[[Path], Path]] = {
    **{name: BUILDERS[name] for name in ("megatron-bert", "qwen3", "qwen3-chat")},
    **FAMILIES,
    "bert": partial(bert, num_labels=1, num_hidden_layers=2),
    "bert-one-layer": partial(bert, num_labels=1, num_hidden_layers=1),
    "xlm-roberta": partial(roberta, **SHORT),
    "modernbert": partial(modernbert, **SHORT),
    "modernbert-mean": partial(modernbert, classifier_pooling="mean", **SHORT),
    "modernbert-local-last": partial(modernbert, num_hidden_layers=3, **SHORT),
    "qwen3-classifier": decoders.qwen3_classifier_st,
    "llama": partial(decoders.qwen3_st, kind="llama"),
    "gemma": partial(decoders.qwen3_st, kind="gemma"),
    "causal": partial(decoders.qwen3_st, kind="olmo2"),
}


@pytest.fixture(scope="package")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a model of `MODELS`."""
    root = tmp_path_factory.mktemp("models")
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            torch.manual_seed(0)
            made[name] = MODELS[name](root / name)
        return made[name]

    return folder


@pytest.fixture(scope="package")
def exact(folder_of: Callable[[str], Path]) -> Callable[[str], np.ndarray]:
    """Return the logits of `WINDOW` in fp32 on the CPU."""
    made: dict[str, np.ndarray] = {}

    def logits(name: str) -> np.ndarray:
        if name not in made:
            (scores,) = Scorer.load(folder_of(name), precision="fp32").score([WINDOW])
            made[name] = scores.logits
        return made[name]

    return logits


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Card]:
    card = Card()
    install(monkeypatch, card)
    with card:
        yield card


def near(precision: Precision, exact: np.ndarray) -> float:
    """Return how far logits may be from those in fp32."""
    largest = max(1.0, float(np.abs(exact).max()))
    return {"fp32": 1e-5, "bf16": 0.05, "fp16": 0.006}[precision] * largest
