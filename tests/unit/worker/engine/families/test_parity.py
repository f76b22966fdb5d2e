"""The engine's fp32 logits equal those of transformers and of CrossEncoder.predict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.support.models.vocabularies import CORPUS
from tests.support.models.windows import mixed_window
from tests.support.models.zoo import FAMILIES
from worker.engine.scorer import PairWindow, Scorer

pytestmark = pytest.mark.slow

PACKED = (
    "bert",
    "bert-two-labels",
    "bert-no-activation",
    "bert-gelu-new",
    "xlm-roberta",
    "roberta-two-labels",
    "modernbert",
    "modernbert-local-last",
    "modernbert-mean",
    "demo",
)
LONG = ("xlm-roberta", "modernbert-local-last", "modernbert-mean", "gte")
# Of logits up to 1. Larger ones have fewer digits after the point, in the reference, too.
TOLERANCE = 1e-5


@torch.inference_mode()
def reference(folder: Path, window: PairWindow, dtype: torch.dtype = torch.float32) -> np.ndarray:
    """Return the raw logits of transformers, each pair by itself, on one thread.

    With two threads its own sums differ, by 1.8e-5 for the demo model, whose logits reach 16.
    """
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = []
    for query, document in zip(window.queries, window.documents, strict=True):
        inputs = tokenizer([query], [document], truncation=True, return_tensors="pt")
        logits = model(**inputs).logits[0]
        rows.append(logits[0] if len(logits) == 1 else logits[1] - logits[0])
    return torch.stack(rows).numpy()


def score(scorer: Scorer, window: PairWindow) -> np.ndarray:
    (scores,) = scorer.score([window])
    return scores.logits


def assert_equal(logits: np.ndarray, expected: np.ndarray) -> None:
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(logits, expected, rtol=0, atol=TOLERANCE * scale)


@pytest.fixture(params=PACKED)
def packed_folder(request: pytest.FixtureRequest, checkpoints: dict[str, Path]) -> Path:
    return checkpoints[request.param]


@pytest.mark.parametrize("name", [*PACKED, *FAMILIES])
def test_equals_transformers(name: str, checkpoints: dict[str, Path]) -> None:
    scorer = Scorer.load(checkpoints[name], precision="fp32")
    window = mixed_window()
    assert (scorer.info.path, scorer.info.path_reason) == ("packed", "")
    assert_equal(score(scorer, window), reference(checkpoints[name], window))


def test_is_as_near_to_double_precision_as_transformers(packed_folder: Path) -> None:
    window = mixed_window()
    exact = reference(packed_folder, window, torch.float64)
    own = np.abs(score(Scorer.load(packed_folder, precision="fp32"), window) - exact).max()
    assert own <= 2 * np.abs(reference(packed_folder, window) - exact).max() + 1e-6


def test_equals_cross_encoder_predict(packed_folder: Path) -> None:
    from sentence_transformers import CrossEncoder

    scorer = Scorer.load(packed_folder, precision="fp32")
    window = mixed_window()
    peer = CrossEncoder(str(packed_folder), device="cpu", model_kwargs={"dtype": torch.float32})
    expected = peer.predict(list(zip(window.queries, window.documents, strict=True)))
    if expected.ndim == 2:  # two labels, left as logits
        expected = expected[:, 1] - expected[:, 0]
    logits = torch.from_numpy(score(scorer, window))
    sigmoid = scorer.info.activation == "sigmoid" and peer.num_labels == 1
    scores = torch.sigmoid(logits) if sigmoid else logits
    assert_equal(scores.numpy(), expected)


@pytest.mark.parametrize("name", LONG)
def test_equals_transformers_at_8192_tokens(name: str, checkpoints: dict[str, Path]) -> None:
    scorer = Scorer.load(checkpoints[name], precision="fp32")
    window = PairWindow(["a long read"] * 2, [" ".join(CORPUS * 40), "short"])
    (scores,) = scorer.score([window])
    assert scores.n_tokens[0] == 8192
    assert scores.truncated.tolist() == [True, False]
    expected = reference(checkpoints[name], window)
    assert_equal(scores.logits, expected)


@pytest.mark.parametrize("max_length", [64, 512])
@pytest.mark.parametrize("name", ["qwen3", "qwen3-chat"])
def test_language_models_equal_cross_encoder_predict(
    name: str, max_length: int, checkpoints: dict[str, Path]
) -> None:
    from sentence_transformers import CrossEncoder

    window = mixed_window()
    scorer = Scorer.load(checkpoints[name], precision="fp32", max_length=max_length)
    peer = CrossEncoder(str(checkpoints[name]), device="cpu", max_length=max_length)
    expected = peer.predict(list(zip(window.queries, window.documents, strict=True)))
    scores = torch.sigmoid(torch.from_numpy(score(scorer, window)))
    assert (scorer.info.path, scorer.info.activation) == ("prefix", "sigmoid")
    assert_equal(scores.numpy(), expected)


def test_activation_is_the_folders_own(checkpoints: dict[str, Path]) -> None:
    assert Scorer.load(checkpoints["bert-no-activation"]).info.activation == "none"
    assert Scorer.load(checkpoints["bert"]).info.activation == "sigmoid"


def test_other_architectures_are_padded_and_report_the_reason(checkpoints: dict[str, Path]) -> None:
    scorer = Scorer.load(checkpoints["megatron-bert"], precision="fp32")
    window = mixed_window()
    assert scorer.info.path == "padded"
    assert scorer.info.path_reason == "no packed forward for megatron-bert"
    expected = reference(checkpoints["megatron-bert"], window)
    assert_equal(score(scorer, window), expected)
