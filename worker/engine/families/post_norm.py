"""Packed bodies whose layers normalise after they add: BERT and the families built like it.

A layer is attention and a feed-forward part; each is added to its input, and the sum is normalised.
Families differ in the names of their modules, in their embeddings and in their attention.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from worker.engine.batches.batching import TokenBatch
from worker.engine.families.family import Kernels
from worker.engine.families.stack import Stack
from worker.engine.kernels.attention import Attention
from worker.engine.kernels.heads import Head
from worker.engine.kernels.layers import Embedding, Linear, Norm, fused


class PostNormForward:
    """The `Forward`; its last layer computes only the rows that the head reads."""

    def __init__(
        self,
        embeddings: Callable[[TokenBatch], torch.Tensor],
        layers: Stack[PostNormLayer],
        head: Head,
    ) -> None:
        self._embeddings = embeddings
        self._layers = layers
        self._head = head

    def forward(self, batch: TokenBatch) -> torch.Tensor:
        """Return logits as `Forward.forward`."""
        batch = batch.filled_up()
        x = self._embeddings(batch)
        for layer in self._layers.body:
            x = layer.every_token(x, batch)
            del layer  # a passing one is freed before the next one is built
        last = self._layers.last
        rows = last.every_token if self._head.reads_every_token else last.first_token
        return self._head(rows(x, batch), batch)


class PostNormEmbeddings:
    """The sum of a token's embeddings, normalised; some families project it to the body's width."""

    def __init__(
        self,
        module: Any,
        kernels: Kernels,
        *,
        padding: int | None = None,
        projection: nn.Linear | None = None,
    ) -> None:
        """Take the embeddings of transformers.

        Args:
            module: has `word_embeddings` and `LayerNorm`, maybe more.
            kernels: the arithmetic of the body.
            padding: the id from which positions are counted; None counts them from 0.
            projection: applied after the norm.
        """
        dtype = kernels.dtype
        self._words = Embedding(module.word_embeddings.weight, dtype=dtype)
        positions = getattr(module, "position_embeddings", None)
        self._positions = None if positions is None else Embedding(positions.weight, dtype=dtype)
        types = getattr(module, "token_type_embeddings", None)
        self._types = None if types is None else Embedding(types.weight, dtype=dtype)
        self._norm = Norm(module.LayerNorm, dtype=dtype)
        self._projection = None if projection is None else fused(kernels.linear, projection)
        self._padding = padding

    def __call__(self, batch: TokenBatch) -> torch.Tensor:
        """Return the embeddings of a batch, (tokens, width)."""
        sources = [self._words(batch.ids)]
        if self._types is not None:
            types = torch.zeros_like(batch.ids) if batch.types is None else batch.types
            sources.append(self._types(types))
        if self._positions is not None:
            sources.append(self._positions(self._place(batch)))
        x = self._norm(*sources)
        return x if self._projection is None else self._projection(x)

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


@dataclass(frozen=True)
class LayerModules:
    """The modules of a layer of transformers by what they do, in the order of their use.

    Attributes:
        narrow: the second linear layer of the feed-forward part; `widen` is the first.
    """

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    mix: nn.Linear
    mix_norm: nn.LayerNorm
    widen: nn.Linear
    narrow: nn.Linear
    out_norm: nn.LayerNorm

    @classmethod
    def of_bert(
        cls, module: Any, projections: tuple[Any, Any, Any], mix: tuple[Any, Any]
    ) -> LayerModules:
        """Return those of a layer whose feed-forward part has BERT's names.

        Args:
            module: the layer.
            projections: to query, key and value.
            mix: the linear layer after the attention, and its norm.
        """
        narrow = module.output
        return cls(*projections, *mix, module.intermediate.dense, narrow.dense, narrow.LayerNorm)


class PostNormLayer:
    """One layer."""

    def __init__(
        self,
        *,
        heads: int,
        qkv: Linear,
        attention: Attention,
        mix: Linear,
        mix_norm: Norm,
        feed_forward: Linear,
        out_norm: Norm,
    ) -> None:
        self._heads = heads
        self._qkv = qkv
        self._attention = attention
        self._mix = mix
        self._mix_norm = mix_norm
        self._feed_forward = feed_forward
        self._out_norm = out_norm

    @classmethod
    def of(
        cls,
        modules: LayerModules,
        kernels: Kernels,
        *,
        heads: int,
        activation: str,
        attention: Attention | None = None,
    ) -> PostNormLayer:
        """Make a layer of modules of transformers.

        Args:
            modules: the modules.
            kernels: the arithmetic of the body.
            heads: the number of attention heads.
            activation: a key of ACTIVATIONS, between the two layers of the feed-forward part.
            attention: that of the layer, where it is not that of the kernels.
        """
        linear, dtype = kernels.linear, kernels.dtype
        widen = fused(linear, modules.widen, activation=activation)
        narrow = fused(linear, modules.narrow)
        return cls(
            heads=heads,
            qkv=fused(linear, modules.query, modules.key, modules.value),
            attention=attention or kernels.attention,
            mix=fused(linear, modules.mix),
            mix_norm=Norm(modules.mix_norm, dtype=dtype),
            feed_forward=lambda x: narrow(widen(x)),
            out_norm=Norm(modules.out_norm, dtype=dtype),
        )

    def every_token(self, x: torch.Tensor, batch: TokenBatch) -> torch.Tensor:
        """Return the output of every token, (tokens, width)."""
        return self._rest(x, self._attention.every_token(self._project(x), batch))

    def first_token(self, x: torch.Tensor, batch: TokenBatch) -> torch.Tensor:
        """Return the output of each pair's first token, (pairs, width)."""
        attended = self._attention.first_token(self._project(x), batch)
        return self._rest(x[batch.first_tokens], attended)

    def _project(self, x: torch.Tensor) -> torch.Tensor:
        return self._qkv(x).view(len(x), 3, self._heads, -1)

    def _rest(self, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        x = self._mix_norm(x, self._mix(attended))
        return self._out_norm(x, self._feed_forward(x))
