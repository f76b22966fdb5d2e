"""Miniature monoT5: T5 or mT5 with the published ids of its answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sentencepiece import SentencePieceProcessor
from transformers import AutoModelForSeq2SeqLM, MT5Config, T5Config, T5Tokenizer

from tests.support.models.checkpoints import save
from tests.support.models.pickles import sentencepiece_model

SIZES = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
TRUE_FALSE = {"▁true": 1176, "▁false": 6136}
YES_NO = {"▁yes": 36, "▁no": 37}


def mono_t5(
    folder: Path,
    model_type: str = "t5",
    answers: dict[str, int] | None = None,
    **config: Any,
) -> Path:
    """Write a checkpoint with random weights; an mT5 has a head of its own."""
    answers = answers or TRUE_FALSE
    trained = SentencePieceProcessor(model_proto=sentencepiece_model())
    pieces = [
        (trained.id_to_piece(each), trained.get_score(each))
        for each in range(trained.get_piece_size())
        if trained.id_to_piece(each) not in answers
    ]
    n_tokens = max(len(pieces) + len(answers), *answers.values()) + 20
    of_id = {each: (text, -8.0) for text, each in answers.items()}
    vocabulary = []
    for each in range(n_tokens):
        filler = pieces.pop(0) if pieces and each not in of_id else (f"▁filler{each}", -50.0)
        vocabulary.append(of_id.get(each, filler))
    tokenizer = T5Tokenizer(vocab=vocabulary, extra_ids=0)
    kind = T5Config if model_type == "t5" else MT5Config
    settings = SIZES | {"vocab_size": n_tokens, "decoder_start_token_id": 0} | config
    model = AutoModelForSeq2SeqLM.from_config(kind(**settings))
    if model_type == "mt5":
        model.lm_head.weight = torch.nn.Parameter(torch.zeros(n_tokens, SIZES["d_model"]))
    return save(folder, tokenizer, model, max_length=512)
