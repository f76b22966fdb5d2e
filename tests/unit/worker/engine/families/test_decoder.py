"""Decoders compute a shared prefix once and score as transformers does with whole, padded pairs."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.support.models.decoders import qwen3_classifier_st, qwen3_st
from tests.support.models.failing import Failing, out_of_memory
from tests.support.models.vocabularies import CORPUS
from tests.support.models.windows import mixed_window
from worker.engine.batches.pairs import EncodedWindow
from worker.engine.kernels.precision import Precision
from worker.engine.scorer import BatchRun, PairWindow, Scorer

pytestmark = pytest.mark.slow

WINDOW = mixed_window()

# The document comes first, so that only the beginning is shared.
DOCUMENT_FIRST = (
    "<|im_start|>Judge this text.\n{{ messages[-1].content }}\n"
    "<|im_start|>{{ messages[-2].content }}<|im_end|>"
)
# The padding token ends each pair, which a classifier does not read.
PADDED_END = "{{ messages[-2].content }}: {{ messages[-1].content }}<|endoftext|>"


def decoder(folder: Path, kind: str = "qwen3", *, classifies: bool = False, **options: Any) -> Path:
    """Write a decoder all of whose weights are random, those of norms and biases, too."""
    torch.manual_seed(0)
    sizes = {"head_dim": 16, "num_hidden_layers": 3, "sliding_window": None}
    if classifies:
        sizes["num_labels"] = 1
    build = qwen3_classifier_st if classifies else qwen3_st
    build(folder, kind, sizes=sizes | options.pop("sizes", {}), **options)
    weights = load_file(folder / "model.safetensors")
    for name, weight in weights.items():
        if weight.dim() == 1:
            weights[name] = weight + 0.3 * torch.randn(weight.shape)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@torch.inference_mode()
def padded_scores(folder: Path, encoded: EncodedWindow) -> np.ndarray:
    """Return the logits of transformers for whole pairs, padded on the left."""
    rows = np.split(encoded.ids.astype(np.int64), encoded.starts[1:])
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[0] * (longest - len(row)) + row.tolist() for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    is_language_model = "CausalLM" in (folder / "config.json").read_text()
    auto: Any = AutoModelForCausalLM if is_language_model else AutoModelForSequenceClassification
    model = auto.from_pretrained(folder, dtype=torch.float32).eval()
    logits = model(ids, attention_mask=mask).logits
    answers = logits[:, -1, 4] - logits[:, -1, 5] if is_language_model else logits[:, 0]
    return answers[torch.from_numpy(encoded.pair_of_row)].numpy()


def encode(scorer: Scorer, window: PairWindow = WINDOW) -> EncodedWindow:
    encoded = scorer._encoder.encode(window)
    assert encoded.prefixes is not None
    return encoded


def assert_scores_as_transformers(
    folder: Path, max_length: int = 128, window: PairWindow = WINDOW
) -> EncodedWindow:
    """Score a window in batches that split groups and hold them; return it encoded."""
    expected = None
    for budget in (300, 100_000):
        scorer = Scorer.load(
            folder, precision="fp32", max_length=max_length, max_batch_tokens=budget
        )
        assert (scorer.info.path, scorer.info.path_reason) == ("prefix", "")
        encoded = encode(scorer, window)
        if expected is None:
            expected = padded_scores(folder, encoded)
        (scores,) = scorer.score([window])
        assert np.ptp(expected) > 0.01
        bound = 1e-5 * max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(scores.logits, expected, rtol=0, atol=bound)
    return encoded


@pytest.mark.parametrize("classifies", [False, True])
@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3", "gemma"])
def test_each_kind_scores_as_transformers(kind: str, classifies: bool, tmp_path: Path) -> None:
    encoded = assert_scores_as_transformers(decoder(tmp_path / kind, kind, classifies=classifies))
    assert encoded.prefixes is not None
    assert encoded.truncated.any() and not encoded.truncated.all()
    assert len(set(encoded.prefixes.of_pair.tolist())) >= 4  # a query each
    assert encoded.prefixes.shared.min() > 20


@pytest.mark.parametrize(
    "sizes",
    [
        {"num_key_value_heads": 4},
        {"num_key_value_heads": 1},
        {"num_hidden_layers": 1},
        {"tie_word_embeddings": True},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
        {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4}},
    ],
)
def test_each_size_scores_as_transformers(sizes: dict[str, Any], tmp_path: Path) -> None:
    assert_scores_as_transformers(decoder(tmp_path / "model", sizes=sizes))


def test_pairs_of_one_query_with_two_prompts_have_two_prefixes(tmp_path: Path) -> None:
    prompts = ["Find passages", None, "Find the opposite"]
    window = PairWindow(["a query"] * 6, CORPUS[:2] * 3, [each for each in prompts for _ in "ab"])
    encoded = assert_scores_as_transformers(decoder(tmp_path / "model"), window=window)
    assert encoded.prefixes is not None
    of_row = encoded.prefixes.of_pair[encoded.pair_of_row].reshape(3, 2)
    assert (of_row[:, 0] == of_row[:, 1]).all() and len(set(of_row[:, 0].tolist())) == 3


def test_a_document_before_the_query_shares_the_beginning_with_all(tmp_path: Path) -> None:
    is_short = [len(query) < 100 for query in WINDOW.queries]
    short = PairWindow(
        list(compress(WINDOW.queries, is_short)), list(compress(WINDOW.documents, is_short))
    )
    folder = decoder(tmp_path / "model", template=DOCUMENT_FIRST)
    encoded = assert_scores_as_transformers(folder, window=short)
    assert encoded.truncated.any()
    assert encoded.prefixes is not None
    assert set(encoded.prefixes.of_pair.tolist()) == {0}
    assert encoded.prefixes.shared.min() > 5


def test_a_classifier_reads_the_last_token_that_is_not_padding(tmp_path: Path) -> None:
    folder = decoder(tmp_path / "model", classifies=True, template=PADDED_END)
    encoded = assert_scores_as_transformers(folder)
    assert encoded.prefixes is not None
    assert (encoded.prefixes.used < encoded.lengths).any()


def test_a_prefix_as_long_as_the_pair_leaves_one_token(tmp_path: Path) -> None:
    """The query takes all the room, so that nothing of the document is left."""
    folder = decoder(tmp_path / "model", template=PADDED_END)
    encoded = assert_scores_as_transformers(folder, max_length=24)
    assert encoded.prefixes is not None
    assert (encoded.prefixes.used - encoded.prefixes.shared).min() == 1


def grouped_pairs(n_queries: int, n_documents: int) -> list[tuple[str, str]]:
    rng = random.Random(0)
    words = " ".join(CORPUS).split()
    queries = [" ".join(rng.choices(words, k=n % 9 + 1)) for n in range(n_queries)]
    return [
        (query, " ".join(rng.choices(words, k=n % 40)))
        for query in queries
        for n in range(n_documents)
    ]


def score(scorer: Scorer, pairs: Sequence[tuple[str, str]], size: int) -> dict[object, float]:
    windows = (pairs[i : i + size] for i in range(0, len(pairs), size))
    scores = scorer.score(
        PairWindow([q for q, _ in some], [d for _, d in some]) for some in windows
    )
    logits = np.concatenate([scored.logits for scored in scores])
    return dict(zip(pairs, logits.tolist(), strict=True))


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_bits_do_not_depend_on_the_group_or_the_batch(
    precision: Precision, n_threads: int, tmp_path: Path
) -> None:
    torch.set_num_threads(n_threads)  # the fixture `one_thread` restores it
    folder = decoder(tmp_path / "model")
    pairs = grouped_pairs(4, 11) + [(f"only once {n}", "a document") for n in range(3)]
    whole = score(Scorer.load(folder, precision=precision), pairs, len(pairs))
    shuffled = random.Random(1).sample(pairs, len(pairs))
    for budget, size in ((1, 47), (300, 1), (300, 17), (100_000, 31)):
        scorer = Scorer.load(folder, precision=precision, max_batch_tokens=budget)
        assert scorer.info.deterministic
        assert score(scorer, shuffled, size) == whole


def test_a_prefix_is_computed_once_for_the_group_and_the_device_may_be_full(
    tmp_path: Path,
) -> None:
    runs: list[BatchRun] = []
    folder = decoder(tmp_path / "model")
    pairs = grouped_pairs(2, 20)
    scorer = Scorer.load(folder, precision="fp32", max_batch_tokens=100_000, on_batch=runs.append)
    window = PairWindow([query for query, _ in pairs], [document for _, document in pairs])
    prefixes = encode(scorer, window).prefixes
    assert prefixes is not None
    expected = score(scorer, pairs, len(pairs))
    own, prefix_lengths = prefixes.used - prefixes.shared, set(prefixes.shared.tolist())
    assert [run.n_tokens for run in runs] == [own.sum() + sum(prefix_lengths)]
    assert runs[0].n_tokens < 0.6 * prefixes.used.sum()

    wrapped = Failing(
        scorer._runner._forward, lambda _, n_tokens: out_of_memory() if n_tokens > 400 else None
    )
    scorer._runner._forward = wrapped
    assert score(scorer, pairs, len(pairs)) == expected
    assert max(wrapped.sizes) <= 400 and len(wrapped.sizes) > 2


@pytest.mark.parametrize(
    ("kind", "sizes", "reason"),
    [
        ("mistral", {"sliding_window": 64}, "it attends within a sliding window"),
        (
            "qwen3",
            {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1},
            "it attends within a sliding window",
        ),
        (
            "llama",
            {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
            "its rotary positions are dynamic",
        ),
        ("gemma2", {"sliding_window": 64}, "no packed forward for gemma2"),
    ],
)
def test_other_attention_stays_on_the_plain_path(
    kind: str, sizes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    for classifies, path in ((False, "causal"), (True, "padded")):
        folder = decoder(tmp_path / path, kind, classifies=classifies, sizes=sizes)
        info = Scorer.load(folder, precision="fp32").info
        assert (info.path, info.path_reason, info.deterministic) == (path, reason, False)
