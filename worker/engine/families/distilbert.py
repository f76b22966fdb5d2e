"""DistilBERT cross-encoders without padding: BERT's layers under other names, without types."""

from __future__ import annotations

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
    if config.activation not in ACTIVATIONS:
        return f"the activation is {config.activation}"
    return None


def _forward(base: Any, head: Head, kernels: Kernels) -> PostNormForward:
    config = base.config

    def layer(module: Any) -> PostNormLayer:
        own = module.attention
        modules = LayerModules(
            query=own.q_lin,
            key=own.k_lin,
            value=own.v_lin,
            mix=own.out_lin,
            mix_norm=module.sa_layer_norm,
            widen=module.ffn.lin1,
            narrow=module.ffn.lin2,
            out_norm=module.output_layer_norm,
        )
        return PostNormLayer.of(
            modules, kernels, heads=config.num_attention_heads, activation=config.activation
        )

    embeddings = PostNormEmbeddings(base.embeddings, kernels)
    return PostNormForward(embeddings, kernels.stack(base.transformer.layer, layer), head)


def _own_head(model: Any) -> Head:
    return classifier("cls", model.pre_classifier, "relu", model.classifier)


FAMILY = Family(
    model_types=("distilbert",),
    why_unsupported=_why_unsupported,
    forward=_forward,
    own_head=_own_head,
)
