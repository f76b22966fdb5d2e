"""BERT, RoBERTa and XLM-RoBERTa cross-encoders without padding.

The two families differ in how positions are counted and in where the head keeps its weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from worker.engine.attention import Attention
from worker.engine.batching import TokenBatch
from worker.engine.layers import ACTIVATIONS, MakeLinear, Norm, exact, fused, single_logit

MODEL_TYPES = ("bert", "roberta", "xlm-roberta", "camembert")


def why_unsupported(config: Any) -> str | None:
    """What in a config of `MODEL_TYPES` this forward does not do; None when it does it all."""
    positions = getattr(config, "position_embedding_type", "absolute")
    if positions not in (None, "absolute"):
        return f"position embeddings are {positions}"
    if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
        return "the model is a decoder"
    if config.hidden_act not in ACTIVATIONS:
        return f"the activation is {config.hidden_act}"
    return None


class BertForward:
    """A `*ForSequenceClassification` of one of `MODEL_TYPES`, CLS row only in the last layer."""

    def __init__(
        self, model: Any, *, dtype: torch.dtype, linear: MakeLinear, attention: Attention
    ) -> None:
        base = model.bert if model.config.model_type == "bert" else model.roberta
        self._attention = attention
        self._embeddings = _Embeddings(base.embeddings, model.config, dtype)
        self._layers = [
            _Layer(layer, model.config, dtype, linear, attention) for layer in base.encoder.layer
        ]
        self._head = [exact(part.weight, part.bias) for part in _head_modules(model, base)]

    def forward(self, batch: TokenBatch) -> torch.Tensor:
        batch = batch.filled_up()
        x = self._embeddings(batch)
        for layer in self._layers[:-1]:
            x = layer.every_token(x, batch)
        x = self._layers[-1].first_token(x, batch).float()
        dense, out = self._head
        return single_logit(out(torch.tanh(dense(x))))


def _head_modules(model: Any, base: Any) -> tuple[Any, Any]:
    if model.config.model_type == "bert":
        return base.pooler.dense, model.classifier
    return model.classifier.dense, model.classifier.out_proj


class _Embeddings:
    def __init__(self, module: Any, config: Any, dtype: torch.dtype) -> None:
        self._words = module.word_embeddings.weight.detach().to(dtype)
        self._positions = module.position_embeddings.weight.detach().to(dtype)
        self._types = module.token_type_embeddings.weight.detach().to(dtype)
        self._norm = Norm(module.LayerNorm, dtype=dtype)
        self._padding = None if config.model_type == "bert" else config.pad_token_id

    def __call__(self, batch: TokenBatch) -> torch.Tensor:
        x = F.embedding(batch.ids, self._words)
        x = x + (self._types[0] if batch.types is None else F.embedding(batch.types, self._types))
        x = x + F.embedding(self._place(batch), self._positions)
        return self._norm(x)

    def _place(self, batch: TokenBatch) -> torch.Tensor:
        if self._padding is None:
            return batch.positions
        return _roberta_positions(batch, self._padding)


def _roberta_positions(batch: TokenBatch, padding: int) -> torch.Tensor:
    """Counted from `padding` + 1, passing over padding tokens that were written in the text.

    As `create_position_ids_from_input_ids` in transformers.
    """
    real = batch.ids.ne(padding).int()
    count = real.cumsum(0, dtype=torch.int32)
    first = torch.arange(len(real), dtype=torch.int32, device=real.device) - batch.positions
    before = (count - real)[first]
    return (count - before) * real + padding


class _Layer:
    def __init__(
        self, module: Any, config: Any, dtype: torch.dtype, linear: MakeLinear, attention: Attention
    ) -> None:
        own, mixed = module.attention.self, module.attention.output
        self._heads = config.num_attention_heads
        self._attention = attention
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
