"""Cross-encoders with random weights in the shapes of published ones, and their FLOPs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

_SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]


@dataclass(frozen=True)
class Shape:
    """The shape of a published model.

    Attributes:
        like: the model's hub id.
        ffn_matrices: hidden x ffn matrices of a layer.
        window: tokens that a local layer reaches to each side; None without local layers.
        settings: more of its config, by name.
    """

    like: str
    model_type: str
    n_layers: int
    hidden: int
    ffn: int
    heads: int
    vocabulary: int
    max_length: int
    ffn_matrices: int = 2
    window: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


SHAPES = {
    "minilm": Shape("cross-encoder/ms-marco-MiniLM-L6-v2", "bert", 6, 384, 1536, 12, 30_522, 512),
    "minilm-l12": Shape(
        "cross-encoder/ms-marco-MiniLM-L12-v2", "bert", 12, 384, 1536, 12, 30_522, 512
    ),
    "bge": Shape("BAAI/bge-reranker-v2-m3", "xlm-roberta", 24, 1024, 4096, 16, 250_002, 8192),
    "gte": Shape(
        "Alibaba-NLP/gte-reranker-modernbert-base",
        "modernbert",
        22,
        768,
        1152,
        12,
        50_368,
        8192,
        ffn_matrices=3,
        window=64,
    ),
}

# Computes next to nothing; for measuring memory over many pairs.
TINY = Shape("nothing", "bert", 1, 32, 64, 2, 16_000, 16)


def useful_flops(shape: Shape, lengths: np.ndarray) -> float:
    """Return the FLOPs that pairs of these lengths need at least; multiply-add counts as two.

    Linear layers: two per weight and token. Attention: 4 * hidden per query and reachable key.
    The last layer: queries, keys and values of every token, the rest of the CLS row only. Left
    out: padding, embeddings, norms, activations, the head.
    """
    qkv = 3 * shape.hidden**2
    rest = shape.hidden**2 + shape.ffn_matrices * shape.hidden * shape.ffn
    tokens, body = float(lengths.sum()), shape.n_layers - 1
    linear = 2 * (shape.n_layers * tokens * qkv + (body * tokens + len(lengths)) * rest)
    n_local = sum(1 for layer in range(body) if layer % 3) if shape.window else 0
    reach = np.minimum(lengths, 2 * (shape.window or 0) + 1)
    keys = (body - n_local) * float((lengths.astype(float) ** 2).sum())
    keys += n_local * float((lengths * reach).sum()) + tokens
    return linear + 4 * shape.hidden * keys


def shape_of(folder: Path) -> Shape:
    """Return the shape of a checkpoint, whose FLOPs are then known.

    Raises:
        StopIteration: the model's family is not one of `SHAPES`.
    """
    config = json.loads((folder / "config.json").read_text())
    family = next(shape for shape in SHAPES.values() if shape.model_type == config["model_type"])
    return replace(
        family,
        like=folder.name,
        n_layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        ffn=config["intermediate_size"],
        heads=config["num_attention_heads"],
        vocabulary=config["vocab_size"],
        max_length=config["max_position_embeddings"],
    )


def make_checkpoint(shape: Shape, folder: Path, sentences: list[str]) -> Path:
    """Save random weights and a tokenizer of the shape's kind, trained on `sentences`."""
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    tokenizer = tokenizer_of(shape.model_type, sentences)
    tokenizer.model_max_length = shape.max_length
    model = AutoModelForSequenceClassification.from_config(_config(shape))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _config(shape: Shape) -> Any:
    from transformers import AutoConfig, ModernBertConfig, XLMRobertaConfig

    common: dict[str, Any] = {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.heads,
        "num_labels": 1,
        "pad_token_id": 0,
    }
    if shape.model_type == "xlm-roberta":
        return XLMRobertaConfig(**common, max_position_embeddings=8193, type_vocab_size=1)
    if shape.model_type == "modernbert":
        return ModernBertConfig(**common)
    return AutoConfig.for_model(shape.model_type, **(common | shape.settings))


def tokenizer_of(model_type: str, sentences: list[str]) -> Any:
    from transformers import PreTrainedTokenizerFast

    kinds = {"xlm-roberta": _unigram, "t5": _unigram, "modernbert": _byte_bpe}
    tokenizer, trainer, pair = kinds.get(model_type, _wordpiece)()
    tokenizer.train_from_iterator(sentences, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair=f"[CLS] $A [SEP] {pair}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in _SPECIAL],
    )
    inputs = ["input_ids", "attention_mask"] + ["token_type_ids"] * (
        model_type in ("bert", "electra", "albert")
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        model_input_names=inputs,
    )


def _wordpiece() -> tuple[Any, Any, str]:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=16_000, special_tokens=_SPECIAL, show_progress=False
    )
    return tokenizer, trainer, "$B:1 [SEP]:1"


def _unigram() -> tuple[Any, Any, str]:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=8_000, special_tokens=_SPECIAL, unk_token="[UNK]", show_progress=False
    )
    return tokenizer, trainer, "[SEP] $B [SEP]"


def _byte_bpe() -> tuple[Any, Any, str]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=16_000,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    return tokenizer, trainer, "$B [SEP]"
