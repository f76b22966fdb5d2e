"""Models without a packed forward: their own forward, on padded batches of like length."""

from __future__ import annotations

from typing import Any

import torch

from worker.engine.batches.batching import TokenBatch
from worker.engine.kernels.exact import run_head_in_fp32
from worker.engine.kernels.heads import Head
from worker.engine.kernels.layers import single_logit


class PaddedForward:
    """The `Forward` of any `*ForSequenceClassification`, padded on its tokenizer's side.

    Its head is in fp32; see `load_weights`.
    """

    def __init__(self, model: Any, *, pad_id: int, pads_left: bool) -> None:
        run_head_in_fp32(model)
        self._model = model
        self._pad_id = pad_id
        self._pads_left = pads_left

    def forward(self, batch: TokenBatch) -> torch.Tensor:
        """Return logits as `Forward.forward`."""
        inputs = pad(batch, pad_id=self._pad_id, left=self._pads_left)
        return single_logit(self._model(**inputs).logits)


class PooledForward:
    """The `Forward` of any body of transformers under a head of modules, which gets no padding."""

    def __init__(self, model: Any, head: Head, *, pad_id: int, pads_left: bool) -> None:
        self._model = model
        self._head = head
        self._pad_id = pad_id
        self._pads_left = pads_left

    def forward(self, batch: TokenBatch) -> torch.Tensor:
        """Return logits as `Forward.forward`."""
        inputs = pad(batch, pad_id=self._pad_id, left=self._pads_left)
        hidden = self._model(**inputs).last_hidden_state.flatten(0, 1)
        places = _places(batch, left=self._pads_left)
        if not self._head.reads_every_token:
            places = places[batch.first_tokens]
        return self._head(hidden[places], batch)


def pad(batch: TokenBatch, *, pad_id: int, left: bool) -> dict[str, torch.Tensor]:
    """Return the inputs of a model of transformers, int64 (pairs, longest).

    `token_type_ids` are left out if the batch has none.
    """
    places = _places(batch, left=left)
    shape = (batch.n_pairs, batch.max_length)
    inputs = {
        "input_ids": _scatter(batch.ids, places, shape, fill=pad_id),
        "attention_mask": _scatter(torch.ones_like(batch.ids), places, shape, fill=0),
    }
    if batch.types is not None:
        inputs["token_type_ids"] = _scatter(batch.types, places, shape, fill=0)
    return inputs


def _places(batch: TokenBatch, *, left: bool) -> torch.Tensor:
    """Return each token's place in the flattened (pairs, longest) rectangle."""
    longest = batch.max_length
    lengths = batch.starts.diff().long()
    rows = torch.arange(batch.n_pairs, device=lengths.device)
    first = rows * longest + (longest - lengths if left else 0)
    first = first.repeat_interleave(lengths, output_size=len(batch.ids))
    return first + batch.positions


def _scatter(
    values: torch.Tensor, places: torch.Tensor, shape: tuple[int, int], *, fill: int
) -> torch.Tensor:
    out = torch.full((shape[0] * shape[1],), fill, dtype=torch.long, device=values.device)
    return out.index_copy_(0, places, values.long()).view(shape)
