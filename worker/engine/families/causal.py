"""LLM rerankers: how much likelier the next token is `yes` than `no`."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from worker.engine.batches.batching import TokenBatch
from worker.engine.families.padded import pad
from worker.engine.folder.model_folder import ModelFolder
from worker.engine.folder.modules import answers_of_logit_score
from worker.engine.folder.refusal import UnusableFolder


class CausalForward:
    """A `*ForCausalLM` whose head is cut down to its answer tokens, in fp32, the true one first.

    Padded on the left, so that the last position is always a real token.
    """

    def __init__(self, model: Any, *, pad_id: int) -> None:
        self._model = model
        self._pad_id = pad_id
        self._n_answers = model.get_output_embeddings().out_features
        # Rotary positions are relative; learned ones count from a text's first token.
        self._states_positions = (
            getattr(model.config, "rope_parameters", None) is None
            and "position_ids" in inspect.signature(model.forward).parameters
        )

    def forward(self, batch: TokenBatch) -> torch.Tensor:
        inputs = pad(batch, pad_id=self._pad_id, left=True)
        inputs.pop("token_type_ids", None)
        if self._states_positions:
            mask = inputs["attention_mask"]
            inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp_min(0)
        out = self._model(**inputs, logits_to_keep=1).logits
        if not isinstance(out, torch.Tensor) or out.shape[-1] != self._n_answers:
            raise ValueError(
                f"{type(self._model).__name__} does not give next-token logits in the usual way, "
                "so that those of the answer tokens cannot be read"
            )
        logits = out[:, -1].float()
        return logits[:, 0] if logits.shape[1] == 1 else logits[:, 0] - logits[:, 1]


def answer_ids(source: ModelFolder) -> list[int]:
    """The tokens that mean relevant and, where it is used, not relevant.

    The folder's own `LogitScore` module decides, else the tokens `yes` and `no`, as in Sentence
    Transformers.

    Raises:
        UnusableFolder: the folder states no such tokens, and the tokenizer has none.
    """
    if source.settings.modules:
        return answers_of_logit_score(source)
    vocabulary = source.tokenizer.get_vocab()
    if "yes" not in vocabulary or "no" not in vocabulary:
        raise UnusableFolder(
            f"{source.path}: a causal language model whose tokenizer has no tokens 'yes' and "
            f"'no' to score with"
        )
    return [vocabulary["yes"], vocabulary["no"]]
