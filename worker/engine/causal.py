"""LLM rerankers: how much likelier the next token is `yes` than `no`."""

from __future__ import annotations

from typing import Any

import torch

from worker.engine.batching import TokenBatch
from worker.engine.folder import ModelFolder
from worker.engine.padded import pad


class CausalForward:
    """A `*ForCausalLM` padded on the left, so that the last position is always a real token."""

    def __init__(self, model: Any, *, pad_id: int, true_id: int, false_id: int | None) -> None:
        self._model = model
        self._pad_id = pad_id
        self._true_id = true_id
        self._false_id = false_id

    def forward(self, batch: TokenBatch) -> torch.Tensor:
        inputs = pad(batch, pad_id=self._pad_id, left=True)
        inputs.pop("token_type_ids", None)
        logits: torch.Tensor = self._model(**inputs, logits_to_keep=1).logits[:, -1].float()
        if self._false_id is None:
            return logits[:, self._true_id]
        return logits[:, self._true_id] - logits[:, self._false_id]


def answer_ids(source: ModelFolder) -> tuple[int, int | None]:
    """The tokens that mean relevant and not relevant; the second may be unused.

    The folder's own `LogitScore` module decides, else the tokens `yes` and `no`, as in Sentence
    Transformers.

    Raises:
        ValueError: the tokenizer has no such tokens.
    """
    for module in source.json_list("modules.json"):
        if str(module.get("type", "")).endswith("LogitScore"):
            stated = source.json(f"{module['path']}/config.json")
            return stated["true_token_id"], stated.get("false_token_id")
    vocabulary = source.tokenizer.get_vocab()
    if "yes" not in vocabulary or "no" not in vocabulary:
        raise ValueError(
            f"{source.path} is a causal language model whose tokenizer has no tokens 'yes' and "
            f"'no' to score with"
        )
    return vocabulary["yes"], vocabulary["no"]
