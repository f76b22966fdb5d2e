"""MPNet cross-encoders without padding: BERT's layers, and a bias by the distance of two tokens."""

from __future__ import annotations

from typing import Any

import torch

from worker.engine.families.family import Family, Kernels
from worker.engine.families.post_norm import (
    LayerModules,
    PostNormEmbeddings,
    PostNormForward,
    PostNormLayer,
)
from worker.engine.kernels.attention import GroupedAttention
from worker.engine.kernels.heads import Head, classifier
from worker.engine.kernels.layers import ACTIVATIONS


def _why_unsupported(config: Any) -> str | None:
    if config.hidden_act not in ACTIVATIONS:
        return f"the activation is {config.hidden_act}"
    return None


def _forward(base: Any, head: Head, kernels: Kernels) -> PostNormForward:
    config = base.config
    attention = GroupedAttention(_DistanceBias(base))

    def layer(module: Any) -> PostNormLayer:
        own = module.attention.attn
        modules = LayerModules.of_bert(
            module, (own.q, own.k, own.v), (own.o, module.attention.LayerNorm)
        )
        return PostNormLayer.of(
            modules,
            kernels,
            heads=config.num_attention_heads,
            activation=config.hidden_act,
            attention=attention,
        )

    # Not the config's padding id: see `MPNetEmbeddings` of transformers.
    embeddings = PostNormEmbeddings(base.embeddings, kernels, padding=base.embeddings.padding_idx)
    return PostNormForward(embeddings, kernels.stack(base.encoder.layer, layer), head)


class _DistanceBias:
    """The number that each head adds to the score of two tokens."""

    def __init__(self, base: Any) -> None:
        encoder = base.encoder
        weight = encoder.relative_attention_bias.weight.detach().float()
        longest = base.config.max_position_embeddings
        distances = torch.arange(1 - longest, longest, device=weight.device)
        self._by_distance = weight[encoder.relative_position_bucket(distances)].t().contiguous()

    def __call__(self, length: int) -> torch.Tensor:
        """Return fp32 (heads, queries, keys) for texts of a length."""
        zero = self._by_distance.shape[1] // 2
        reached: torch.Tensor = self._by_distance[:, zero - length + 1 : zero + length]
        return reached.unfold(1, length, 1).flip(1)


def _own_head(model: Any) -> Head:
    return classifier("cls", model.classifier.dense, "tanh", model.classifier.out_proj)


FAMILY = Family(
    model_types=("mpnet",),
    why_unsupported=_why_unsupported,
    forward=_forward,
    own_head=_own_head,
)
