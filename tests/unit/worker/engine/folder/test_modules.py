"""A head of modules scores as in CrossEncoder; a module that is not supported is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Dense, Normalize
from sentence_transformers.sentence_transformer.modules import (
    CNN,
    Dropout,
    LayerNorm,
    Pooling,
)
from torch import nn

from tests.support.models import decoders, zoo
from tests.support.models.windows import mixed_window
from worker.engine.kernels.precision import Precision
from worker.engine.scorer import Scorer

pytestmark = pytest.mark.slow

WIDTH = 32


def out(n_in: int = WIDTH, n_out: int = 1, **options: Any) -> Dense:
    options = {"activation_function": nn.Identity(), "module_output_name": "scores"} | options
    return Dense(n_in, n_out, **options)


def pooled(*modes: str) -> Pooling:
    return Pooling(WIDTH, pooling_mode=modes)


BODIES: dict[str, Callable[..., Path]] = {
    "bert": zoo.bert_like,
    "xlm-roberta": partial(zoo.xlm_roberta, positions=514),
    "modernbert": zoo.modernbert,
    "electra": partial(zoo.bert_like, kind="electra"),
    "distilbert": partial(zoo.bert_like, kind="distilbert"),
    "qwen3": decoders.language_model,
}

HEADS: dict[str, Callable[[], tuple[Any, ...]]] = {
    "linear": lambda: (pooled("cls"), out()),
    "mean": lambda: (pooled("mean"), Dense(WIDTH, 20), out(20)),
    "max": lambda: (pooled("max"), LayerNorm(WIDTH), out()),
    "lasttoken": lambda: (pooled("lasttoken"), Dropout(0.3), out(bias=False)),
    "weightedmean": lambda: (pooled("weightedmean"), out()),
    "several": lambda: (pooled("cls", "mean_sqrt_len_tokens", "mean"), out(3 * WIDTH)),
    "unit": lambda: (pooled("cls"), Normalize(), out(activation_function=nn.Tanh())),
    "residual": lambda: (
        pooled("cls"),
        Dense(WIDTH, WIDTH, use_residual=True, activation_function=nn.SiLU()),
        Dense(WIDTH, 7, use_residual=True, activation_function=nn.ReLU()),
        out(7),
    ),
    "tokens-first": lambda: (
        Dense(WIDTH, 12, module_input_name="token_embeddings", activation_function=nn.ELU()),
        Normalize("token_embeddings"),
        Pooling(12, pooling_mode="mean"),
        out(12),
    ),
    "two-labels": lambda: (pooled("cls"), out(n_out=2)),
    "other-names": lambda: (
        pooled("cls"),
        Dense(WIDTH, 9, module_output_name="wide", activation_function=nn.GELU()),
        out(9, module_input_name="wide"),
    ),
}


def made(folder: Path, body: str, head: str) -> Path:
    torch.manual_seed(0)
    return zoo.modular(folder, BODIES[body], *HEADS[head]())


def score(folder: Path, precision: Precision = "fp32") -> np.ndarray:
    (scores,) = Scorer.load(folder, precision=precision).score([mixed_window()])
    return scores.logits


@pytest.mark.parametrize(
    ("body", "head"),
    [
        *(("modernbert", head) for head in HEADS),
        *(("bert", head) for head in ("linear", "mean", "tokens-first")),
        ("xlm-roberta", "several"),
        *((body, "mean") for body in ("electra", "distilbert", "qwen3")),
        *(("qwen3", head) for head in ("linear", "lasttoken", "weightedmean")),
    ],
)
def test_equals_cross_encoder_predict(body: str, head: str, tmp_path: Path) -> None:
    folder = made(tmp_path / "model", body, head)
    scorer = Scorer.load(folder, precision="fp32")
    packs = body != "qwen3"
    assert (scorer.info.path, scorer.info.activation) == ("packed" if packs else "padded", "none")
    window = mixed_window()
    peer = CrossEncoder(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    expected = peer.predict(list(zip(window.queries, window.documents, strict=True)))
    if head == "two-labels":
        expected = expected[:, 1] - expected[:, 0]
    assert np.ptp(expected) > 0.02
    # Sums over many tokens reach 40, where fp32 itself has steps of 4e-6.
    (found,) = scorer.score([window])
    np.testing.assert_allclose(found.logits, expected, rtol=1e-6, atol=1e-5)
    assert score(folder).tolist() == found.logits.tolist()


@pytest.mark.parametrize(("body", "head"), [("modernbert", "residual"), ("electra", "mean")])
def test_a_head_of_modules_is_exact_in_bf16(body: str, head: str, tmp_path: Path) -> None:
    folder = made(tmp_path / "model", body, head)
    exact, reduced = score(folder), score(folder, "bf16")
    assert len(set(exact.tolist())) == len(set(reduced.tolist()))
    assert np.abs(exact - reduced).max() < 0.1 * np.ptp(exact)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("head", ["several", "residual", "tokens-first", "weightedmean"])
def test_bits_do_not_depend_on_the_batch(head: str, precision: Precision, tmp_path: Path) -> None:
    torch.set_num_threads(2)  # a fixture restores it
    folder = made(tmp_path / "model", "modernbert", head)
    scorer = Scorer.load(folder, precision=precision)
    assert scorer.info.deterministic
    (whole,) = scorer.score([mixed_window()])
    (alone,) = Scorer.load(folder, precision=precision, max_batch_tokens=1).score([mixed_window()])
    assert alone.logits.tolist() == whole.logits.tolist()


def edit(folder: Path, name: str, **changes: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def drop(folder: Path, name: str, *keys: str) -> None:
    weights = {k: v for k, v in load_file(folder / name).items() if k not in keys}
    save_file(weights, folder / name)


def rename(folder: Path, place: int, **changes: str) -> None:
    listed = json.loads((folder / "modules.json").read_text())
    listed[place] |= changes
    (folder / "modules.json").write_text(json.dumps(listed))


def cut(folder: Path) -> None:
    weights = load_file(folder / "4_Dense/model.safetensors")
    weights["linear.weight"] = weights["linear.weight"][:, :16].contiguous()
    save_file(weights, folder / "4_Dense/model.safetensors")


def pickled(folder: Path) -> None:
    (folder / "2_Dense/model.safetensors").rename(folder / "2_Dense/pytorch_model.bin")


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "module of its own": (lambda f: rename(f, 2, type="custom.Head"), "custom.Head"),
    "unknown module": (
        lambda f: rename(f, 2, type=f"{CNN.__module__}.CNN"),
        "CNN is not supported; a head is made of Dense, Dropout, LayerNorm, Normalize, Pooling",
    ),
    "no scores": (lambda f: edit(f, "4_Dense/config.json", module_output_name="x"), "gives none"),
    "three labels": (
        lambda f: edit(f, "4_Dense/config.json", out_features=3),
        "4_Dense: Dense: linear.weight is",
    ),
    "missing weight": (
        lambda f: drop(f, "4_Dense/model.safetensors", "linear.bias"),
        "lacks linear.bias",
    ),
    "weight left over": (
        lambda f: edit(f, "4_Dense/config.json", bias=False),
        "has an unknown linear.bias",
    ),
    "other shape": (cut, r"not floats of \(1, 32\)"),
    "width of the body": (
        lambda f: edit(f, "1_Pooling/config.json", embedding_dimension=64),
        "says 64 inputs, but token_embeddings has 32",
    ),
    "width of the head": (
        lambda f: edit(f, "3_LayerNorm/config.json", dimension=16),
        "3_LayerNorm: LayerNorm",
    ),
    "pickled": (pickled, "pytorch_model.bin can run code"),
    "unknown option": (lambda f: edit(f, "2_Dense/config.json", gate=1), "option gate"),
    "unknown activation": (
        lambda f: edit(f, "2_Dense/config.json", activation_function="torch.nn.Softmax"),
        "torch.nn.Softmax is not supported",
    ),
    "activation of its own": (
        lambda f: edit(f, "2_Dense/config.json", activation_function="os.system"),
        "os.system is not supported",
    ),
    "unknown pooling": (
        lambda f: edit(f, "1_Pooling/config.json", pooling_mode="median"),
        "'median'.* is none of cls",
    ),
    "reads nothing": (
        lambda f: edit(f, "4_Dense/config.json", module_input_name="image"),
        "reads image, which no module before it writes",
    ),
    "another output of the body": (
        lambda f: edit(
            f,
            "sentence_bert_config.json",
            modality_config={"text": {"method": "forward", "method_output_name": "pooler_output"}},
        ),
        "method_output_name is 'pooler_output'; feature-extraction is supported with last_hidden",
    ),
    "another name of it": (
        lambda f: edit(f, "sentence_bert_config.json", module_output_name="sentence_embedding"),
        "module_output_name is 'sentence_embedding'",
    ),
    "path out": (lambda f: rename(f, 2, path="../other"), "other"),
    "prompt left out": (
        lambda f: (
            edit(f, "1_Pooling/config.json", include_prompt=False),
            edit(
                f,
                "config_sentence_transformers.json",
                prompts={"q": "Find: "},
                default_prompt_name="q",
            ),
        ),
        "include_prompt is false",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_or_unknown_module_is_refused_by_name(name: str, tmp_path: Path) -> None:
    folder = zoo.ettin(tmp_path / "model")
    damage, complaint = BROKEN[name]
    damage(folder)
    with pytest.raises(ValueError, match=complaint) as caught:
        Scorer.load(folder, precision="fp32")
    assert "\n" not in str(caught.value)
