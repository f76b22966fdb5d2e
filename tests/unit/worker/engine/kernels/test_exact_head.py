"""The head is in fp32 on every path, so that 16 bits never make two pairs tie."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, dynamic_module_utils

from tests.support.models import decoders, zoo
from tests.support.models.own_code import layerwise
from tests.support.models.windows import many_pairs
from worker.engine.kernels.precision import Precision
from worker.engine.scorer import Scorer

pytestmark = pytest.mark.slow

Builder = Callable[[Path], Path]

PATHS: dict[str, tuple[str, Builder]] = {
    "bert": ("packed", zoo.bert_like),
    "xlm-roberta": ("packed", partial(zoo.xlm_roberta, positions=514)),
    "modernbert": ("packed", zoo.modernbert),
    "modernbert-mean": ("packed", partial(zoo.modernbert, pooling="mean")),
    "electra": ("packed", partial(zoo.bert_like, kind="electra")),
    "distilbert": ("packed", partial(zoo.bert_like, kind="distilbert")),
    "albert": ("packed", partial(zoo.bert_like, kind="albert")),
    "megatron-bert": ("padded", partial(zoo.bert_like, kind="megatron-bert")),
    "prelayernorm": ("padded", partial(zoo.bert_like, kind="roberta-prelayernorm")),
    "mpnet": ("packed", partial(zoo.bert_like, kind="mpnet")),
    "deberta": ("packed", zoo.deberta),
    "gte": ("packed", zoo.gte),
    "qwen3-classifier": ("prefix", decoders.qwen3_classifier_st),
    "qwen3": ("prefix", decoders.qwen3_st),
    "qwen3-tied": ("prefix", partial(decoders.qwen3_st, sizes={"tie_word_embeddings": True})),
    "zerank": ("prefix", decoders.zerank),
    "gemma2-capped": ("causal", partial(decoders.qwen3_st, kind="gemma2")),
    "granite-scaled": (
        "causal",
        partial(decoders.qwen3_st, kind="granite", sizes={"logits_scaling": 4.0}),
    ),
    "cohere-scaled": (
        "causal",
        partial(decoders.qwen3_st, kind="cohere", sizes={"logit_scale": 0.5}),
    ),
    "phi-with-bias": ("causal", partial(decoders.qwen3_st, kind="phi")),
}


def score(folder: Path, precision: Precision) -> np.ndarray:
    (scores,) = Scorer.load(folder, precision=precision).score([many_pairs()])
    return scores.logits


def lift(folder: Path, by: float) -> None:
    """Move both answers of a language model far from zero, as in a real one."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    states = []
    model.get_output_embeddings().register_forward_pre_hook(lambda _, args: states.append(args[0]))
    with torch.inference_mode():
        model(torch.arange(40)[None])
    mean = states[0][0].mean(0)
    weights = load_file(folder / "model.safetensors")
    (name,) = {"lm_head.weight", "model.embed_tokens.weight"} & set(weights) - (
        {"model.embed_tokens.weight"} if "lm_head.weight" in weights else set()
    )
    for token in (4, 5):
        weights[name][token] += mean / mean.dot(mean) * by
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


CAUSAL = [
    *(name for name, (path, _) in PATHS.items() if path == "causal"),
    *("qwen3", "qwen3-tied", "zerank"),
]
HEADS = {
    "megatron-bert": {"bert.pooler.dense", "classifier"},
    "prelayernorm": {"classifier.dense", "classifier.out_proj"},
}
IN_FP16 = ("bert", "megatron-bert", "deberta", "qwen3-classifier", "qwen3")


def build(name: str, folder: Path) -> Path:
    torch.manual_seed(0)
    _, builder = PATHS[name]
    builder(folder)
    if name in CAUSAL:
        lift(folder, 18.0)
    return folder


@pytest.mark.parametrize(
    ("name", "precision"),
    [*((name, "bf16") for name in PATHS), *((name, "fp16") for name in IN_FP16), ("bert", "int8")],
)
def test_reduced_precision_ties_no_two_pairs(
    name: str, precision: Precision, tmp_path: Path
) -> None:
    folder = build(name, tmp_path / name)
    scorer = Scorer.load(folder, precision=precision)
    assert scorer.info.path == PATHS[name][0]
    exact, reduced = score(folder, "fp32"), score(folder, precision)
    # Two of 200 fp32 numbers in so small a range are equal by chance once in 500 runs.
    assert len(set(exact.tolist())) >= 199
    assert len(set(reduced.tolist())) >= 199
    assert np.abs(reduced - exact).max() < 0.15 * np.ptp(exact)


@torch.inference_mode()
@pytest.mark.parametrize("name", CAUSAL)
def test_two_rows_of_the_head_give_the_logits_of_the_whole(name: str, tmp_path: Path) -> None:
    """The logits are capped, scaled, tied or have a bias as in the model's own forward."""
    folder = build(name, tmp_path / name)
    scorer = Scorer.load(folder, precision="fp32")
    window = many_pairs(5)
    encoded = scorer._encoder.encode(window)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    expected = []
    for pair in encoded.pair_of_row:
        start = encoded.starts[pair]
        ids = torch.from_numpy(encoded.ids[start : start + encoded.lengths[pair]].astype(np.int64))
        logits = model(ids[None]).logits[0, -1]
        expected.append(logits[4].item() - (0 if name == "zerank" else logits[5].item()))
    (scores,) = scorer.score([window])
    np.testing.assert_allclose(scores.logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [*HEADS, "gemma2-capped", "granite-scaled"])
def test_the_weights_of_the_head_are_those_of_the_file(name: str, tmp_path: Path) -> None:
    folder = build(name, tmp_path / name)
    stored = load_file(folder / "model.safetensors")
    model: Any = Scorer.load(folder, precision="bf16")._runner._forward
    weights = {key: value for key, value in model._model.named_parameters()}
    head = {key for key, value in weights.items() if value.dtype == torch.float32}
    if name not in HEADS:
        assert head == {"lm_head.weight"}
        whole = "lm_head.weight" if "lm_head.weight" in stored else "model.embed_tokens.weight"
        assert torch.equal(weights["lm_head.weight"], stored[whole][4:6])
    else:
        assert {key.rpartition(".")[0] for key in head} == HEADS[name]
        assert all(torch.equal(weights[key], stored[key]) for key in head)


def test_an_answer_token_beyond_the_vocabulary_is_refused(tmp_path: Path) -> None:
    folder = decoders.zerank(tmp_path / "model")
    (folder / "1_LogitScore" / "config.json").write_text('{"true_token_id": 100000}')
    with pytest.raises(ValueError, match="not all among the"):
        Scorer.load(folder)


def test_a_forward_without_logits_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layerwise rerankers return the scores of several layers instead."""
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "code"))
    folder = layerwise(tmp_path / "model", "LayerWiseMiniCPM", "minicpm")
    (folder / "chat_template.jinja").write_text(decoders.QWEN)
    with pytest.raises(ValueError, match="LayerWiseMiniCPMForCausalLM does not give next-token"):
        Scorer.load(folder, may_run_code=True)


def test_a_max_length_below_the_chat_template_is_refused(tmp_path: Path) -> None:
    folder = build("qwen3", tmp_path / "model")
    with pytest.raises(ValueError, match="max_length 40 leaves no room for text"):
        Scorer.load(folder, max_length=40)
