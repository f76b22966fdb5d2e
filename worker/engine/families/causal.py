"""LLM rerankers: the logit of the next token `yes` minus that of `no`."""

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
    """The `Forward` of a `*ForCausalLM` whose head has the answer tokens only, in fp32.

    The token that means relevant comes first. Batches are padded on the left, so that the last
    position is always a real token.
    """

    def __init__(self, model: Any, *, pad_id: int) -> None:
        self._model = model
        self._pad_id = pad_id
        self._n_answers = model.get_output_embeddings().out_features
        # Rotary positions are relative; learned ones must count from a text's first token.
        self._states_positions = (
            getattr(model.config, "rope_parameters", None) is None
            and "position_ids" in inspect.signature(model.forward).parameters
        )

    def forward(self, batch: TokenBatch) -> torch.Tensor:
        """Return logits as `Forward.forward`."""
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
    """Return the token that means relevant and, if one is used, the one that means irrelevant.

    They are those of the folder's `LogitScore` module, else `yes` and `no` as in Sentence
    Transformers.

    Raises:
        UnusableFolder: the folder names no such tokens, and the tokenizer has no `yes` and `no`.
    """
    if source.settings.modules:
        return answers_of_logit_score(source)
    vocabulary = source.tokenizer.get_vocab()
    if "yes" not in vocabulary or "no" not in vocabulary:
        raise UnusableFolder(
            f"{source.path}: a causal language model whose tokenizer has no tokens 'yes' and "
            "'no' to score with; name its answers with --yes-token and --no-token"
        )
    return [vocabulary["yes"], vocabulary["no"]]
