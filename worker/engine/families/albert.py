"""ALBERT cross-encoders without padding: BERT's layers, of which several are the same one."""

from __future__ import annotations

from functools import cache
from typing import Any

from worker.engine.families.family import Family, Kernels
from worker.engine.families.post_norm import (
    LayerModules,
    PostNormEmbeddings,
    PostNormForward,
    PostNormLayer,
)
from worker.engine.kernels.heads import Head, classifier
from worker.engine.kernels.layers import ACTIVATIONS


def _why_unsupported(config: Any) -> str | None:
    if config.hidden_act not in ACTIVATIONS:
        return f"the activation is {config.hidden_act}"
    return None


def _forward(base: Any, head: Head, kernels: Kernels) -> PostNormForward:
    config = base.config

    @cache
    def layer(module: Any) -> PostNormLayer:
        own = module.attention
        modules = LayerModules(
            query=own.query,
            key=own.key,
            value=own.value,
            mix=own.dense,
            mix_norm=own.LayerNorm,
            widen=module.ffn,
            narrow=module.ffn_output,
            out_norm=module.full_layer_layer_norm,
        )
        return PostNormLayer.of(
            modules, kernels, heads=config.num_attention_heads, activation=config.hidden_act
        )

    embeddings = PostNormEmbeddings(
        base.embeddings, kernels, projection=base.encoder.embedding_hidden_mapping_in
    )
    return PostNormForward(embeddings, kernels.stack(_layers(base), layer), head)


def _layers(base: Any) -> list[Any]:
    """Return the modules of all layers in their order, each as often as it is used."""
    config, groups = base.config, base.encoder.albert_layer_groups
    per_group = config.num_hidden_layers / config.num_hidden_groups
    chosen = [groups[int(place / per_group)] for place in range(config.num_hidden_layers)]
    return [layer for group in chosen for layer in group.albert_layers]


def _own_head(model: Any) -> Head:
    return classifier("cls", model.albert.pooler, "tanh", model.classifier)


FAMILY = Family(
    model_types=("albert",),
    why_unsupported=_why_unsupported,
    forward=_forward,
    own_head=_own_head,
)
