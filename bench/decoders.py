"""Language models with random weights in the shapes of published rerankers, and their tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from bench.workload import Corpus

BOS, PAD, START, END = "<bos>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"
_SPECIAL = [PAD, START, END, "<think>", "</think>", "yes", "no", BOS, "Yes"]


def make_decoder(
    folder: Path,
    model_type: str,
    corpus: Corpus,
    *,
    max_length: int = 1024,
    chat_template: str | None = None,
    **sizes: Any,
) -> Path:
    """Save random weights of these sizes with the files of a reranker.

    Args:
        folder: where to write.
        model_type: of transformers.
        corpus: texts that the tokenizer is trained on.
        max_length: tokens of a pair.
        chat_template: of the tokenizer; its words are tokens.
        sizes: settings of the model's config; the vocabulary is the tokenizer's by default.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    tokenizer = _tokenizer(corpus, chat_template, max_length)
    known = {"vocab_size": len(tokenizer), "max_position_embeddings": 40_960, "pad_token_id": 0}
    config = AutoConfig.for_model(model_type, **(known | {"tie_word_embeddings": True} | sizes))
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(corpus: Corpus, chat_template: str | None, max_length: int) -> Any:
    """Return a byte-level BPE for which the prompt's words are tokens, as they are for Qwen's."""
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=16_000,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([*corpus.sentences, *[chat_template or ""] * 100], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS,
        pad_token=PAD,
        eos_token=END,
        padding_side="left",
        model_max_length=max_length,
        chat_template=chat_template,
    )
