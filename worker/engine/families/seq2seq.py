"""Rerankers of an encoder and a decoder, as monoT5: the first token of the answer decides.

The decoder makes one step from its start token (Nogueira et al. 2020, "Document Ranking with a
Pretrained Sequence-to-Sequence Model"). The score is the softmax over the two answer tokens, and a
pair's logit the difference between the logits of these.
"""

from __future__ import annotations

from typing import Any

import torch

from worker.engine.batches.batching import TokenBatch
from worker.engine.families.padded import pad
from worker.engine.folder.model_folder import ModelFolder
from worker.engine.folder.refusal import UnusableFolder


class Seq2SeqForward:
    """The `Forward` of a T5 whose head has the answer tokens only, in fp32.

    The token that means relevant comes first. Batches are padded on the right: positions are
    relative, and the encoder's mask leaves the padding out for the decoder, too.
    """

    def __init__(self, model: Any, *, pad_id: int, start_id: int) -> None:
        self._model = model
        self._pad_id = pad_id
        self._start_id = start_id

    def forward(self, batch: TokenBatch) -> torch.Tensor:
        """Return logits as `Forward.forward`."""
        inputs = pad(batch, pad_id=self._pad_id, left=False)
        inputs.pop("token_type_ids", None)
        shape = (batch.n_pairs, 1)
        start = torch.full(shape, self._start_id, dtype=torch.long, device=batch.ids.device)
        out: torch.Tensor = self._model(**inputs, decoder_input_ids=start).logits
        logits = out[:, 0].float()
        return logits[:, 0] if logits.shape[1] == 1 else logits[:, 0] - logits[:, 1]


def start_token(source: ModelFolder) -> int:
    """Return the token that the decoder starts from; T5 starts from its padding.

    Raises:
        UnusableFolder: config.json names none.
    """
    config = source.config
    start = getattr(config, "decoder_start_token_id", None)
    start = config.pad_token_id if start is None else start
    if type(start) is not int or not 0 <= start < config.vocab_size:
        raise UnusableFolder(
            f"{source.path}: config.json has decoder_start_token_id {start}; the decoder needs a "
            "token to start from"
        )
    return start
