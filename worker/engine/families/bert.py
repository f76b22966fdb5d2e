"""BERT and RoBERTa cross-encoders without padding.

BERT differs from the others in how positions are counted and in the names of its head's weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from worker.engine.batches.batching import TokenBatch
from worker.engine.families.bert_modules import BertModules
from worker.engine.families.family import Family, Kernels
from worker.engine.kernels.heads import Head, classifier
from worker.engine.kernels.layers import ACTIVATIONS, Embedding, Norm, fused


def _why_unsupported(config: Any) -> str | None:
    positions = getattr(config, "position_embedding_type", "absolute")
    if positions not in (None, "absolute"):
        return f"position embeddings are {positions}"
    if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
        return "the model is a decoder"
    if config.hidden_act not in ACTIVATIONS:
        return f"the activation is {config.hidden_act}"
    return None


class _Bert:
    """The `Forward`; its last layer computes only the rows that the head reads."""

    def __init__(self, base: Any, head: Head, kernels: Kernels) -> None:
        self._embeddings = _Embeddings(base.embeddings, base.config, kernels.dtype)
        self._layers = kernels.stack(
            base.encoder.layer, lambda layer: _Layer(layer, base.config, kernels)
        )
        self._head = head

    def forward(self, batch: TokenBatch) -> torch.Tensor:
        """Return logits as `Forward.forward`."""
        batch = batch.filled_up()
        x = self._embeddings(batch)
        for layer in self._layers.body:
            x = layer.every_token(x, batch)
        last = self._layers.last
        rows = last.every_token if self._head.reads_every_token else last.first_token
        return self._head(rows(x, batch), batch)


def _own_head(model: Any) -> Head:
    if model.config.model_type == "bert":
        dense, out = model.bert.pooler.dense, model.classifier
    else:
        dense, out = model.classifier.dense, model.classifier.out_proj
    return classifier("cls", dense, "tanh", out)


class _Embeddings:
    def __init__(self, module: Any, config: Any, dtype: torch.dtype) -> None:
        self._words = Embedding(module.word_embeddings.weight, dtype=dtype)
        self._positions = Embedding(module.position_embeddings.weight, dtype=dtype)
        self._types = module.token_type_embeddings.weight.detach().to(dtype)
        self._norm = Norm(module.LayerNorm, dtype=dtype)
        self._padding: int | None = None if config.model_type == "bert" else config.pad_token_id

    def __call__(self, batch: TokenBatch) -> torch.Tensor:
        x = self._words(batch.ids)
        x = x + (self._types[0] if batch.types is None else F.embedding(batch.types, self._types))
        x = x + self._positions(self._place(batch))
        return self._norm(x)

    def _place(self, batch: TokenBatch) -> torch.Tensor:
        """Return each token's row of the position embeddings, int32 (tokens,).

        RoBERTa counts from the padding id + 1, and skips padding tokens that occur in the text: see
        `create_position_ids_from_input_ids` in transformers.
        """
        if self._padding is None:
            return batch.positions
        real = batch.ids.ne(self._padding).int()
        count = real.cumsum(0, dtype=torch.int32)
        first = torch.arange(len(real), dtype=torch.int32, device=real.device) - batch.positions
        before = (count - real)[first]
        return (count - before) * real + self._padding


class _Layer:
    def __init__(self, module: Any, config: Any, kernels: Kernels) -> None:
        linear, dtype = kernels.linear, kernels.dtype
        own, mixed = module.attention.self, module.attention.output
        self._heads = config.num_attention_heads
        self._attention = kernels.attention
        self._qkv = fused(linear, own.query, own.key, own.value)
        self._mix = fused(linear, mixed.dense)
        self._mix_norm = Norm(mixed.LayerNorm, dtype=dtype)
        self._widen = fused(linear, module.intermediate.dense, activation=config.hidden_act)
        self._narrow = fused(linear, module.output.dense)
        self._out_norm = Norm(module.output.LayerNorm, dtype=dtype)

    def every_token(self, x: torch.Tensor, batch: TokenBatch) -> torch.Tensor:
        return self._rest(x, self._attention.every_token(self._project(x), batch))

    def first_token(self, x: torch.Tensor, batch: TokenBatch) -> torch.Tensor:
        attended = self._attention.first_token(self._project(x), batch)
        return self._rest(x[batch.first_tokens], attended)

    def _project(self, x: torch.Tensor) -> torch.Tensor:
        return self._qkv(x).view(len(x), 3, self._heads, -1)

    def _rest(self, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        x = self._mix_norm(x + self._mix(attended))
        return self._out_norm(x + self._narrow(self._widen(x)))


FAMILY = Family(
    model_types=("bert", "roberta", "xlm-roberta", "camembert"),
    why_unsupported=_why_unsupported,
    forward=_Bert,
    own_head=_own_head,
    modules=BertModules,
)
