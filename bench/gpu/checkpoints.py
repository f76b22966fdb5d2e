"""The models of the calls: random weights in published shapes, made once on the device."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench.decoders import make_decoder
from bench.engine.shapes import SHAPES, TINY, Shape, make_checkpoint, shape_of
from bench.prefix import PROMPT
from bench.workload import Corpus

_DEMO = Path(__file__).parents[2] / "models" / "demo-reranker"

ENCODERS: Mapping[str, Shape] = {**SHAPES, "tiny": replace(TINY, max_length=512)}

# config.json of Qwen3-Reranker-0.6B and -4B; the last is for checks of this benchmark.
_QWEN = {
    "vocab_size": 151_936,
    "head_dim": 128,
}
DECODERS: Mapping[str, Mapping[str, Any]] = {
    "causal-0.6b": {
        **_QWEN,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
    },
    "causal-4b": {
        **_QWEN,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "causal-tiny": {
        **_QWEN,
        "vocab_size": 16_000,
        "head_dim": 16,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    },
}
NAMES = ("demo", *ENCODERS, *DECODERS)


def checkpoint(name: str, work: Path, corpus: Corpus, device: str) -> Path:
    """Return the folder of a model, made if it is not there whole.

    Args:
        name: one of `NAMES`, or the folder of a real model.
        work: where models are made; they stay there for later calls.
        corpus: what tokenizers are trained on.
        device: where the weights are drawn.
    """
    if name == "demo":
        return _DEMO
    if name not in NAMES:
        return Path(name)
    folder = work / name
    if not folder.exists():
        making = work / f"{name}.{os.getpid()}"
        making.mkdir(parents=True)
        with torch.device(device):
            if name in DECODERS:
                # In bf16, as published ones are.
                sizes = {**DECODERS[name], "dtype": torch.bfloat16}
                make_decoder(making, "qwen3", corpus, chat_template=PROMPT, **sizes)
            else:
                make_checkpoint(ENCODERS[name], making, corpus.sentences)
        making.rename(folder)
    return folder


def shape(name: str, folder: Path) -> Shape | None:
    """Return the shape of a model whose FLOPs are known; None for another."""
    if name in ENCODERS:
        return ENCODERS[name]
    try:
        return shape_of(folder)
    except (StopIteration, KeyError):
        return None


def has_random_weights(name: str) -> bool:
    """Return whether a model was made here: its rankings are those of noise."""
    return name != "demo" and name in NAMES


def n_parameters(folder: Path) -> int:
    """Return the parameters of a folder's weights, by the headers of its files."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
        for tensor_name, tensor in header.items():
            if tensor_name != "__metadata__":
                total += int(torch.Size(tensor["shape"]).numel())
    return total
