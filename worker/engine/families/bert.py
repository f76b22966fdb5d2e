"""BERT, RoBERTa and ELECTRA cross-encoders without padding.

They differ in how positions are counted, in the width of the embeddings and in their heads.
"""

from __future__ import annotations

from typing import Any

from worker.engine.families.bert_modules import BertModules
from worker.engine.families.family import Family, Kernels
from worker.engine.families.post_norm import (
    LayerModules,
    PostNormEmbeddings,
    PostNormForward,
    PostNormLayer,
)
from worker.engine.kernels.heads import Head, classifier
from worker.engine.kernels.layers import ACTIVATIONS

_COUNTS_FROM_ZERO = ("bert", "electra")


def _why_unsupported(config: Any) -> str | None:
    positions = getattr(config, "position_embedding_type", "absolute")
    if positions not in (None, "absolute"):
        return f"position embeddings are {positions}"
    if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
        return "the model is a decoder"
    if config.hidden_act not in ACTIVATIONS:
        return f"the activation is {config.hidden_act}"
    return None


def _forward(base: Any, head: Head, kernels: Kernels) -> PostNormForward:
    config = base.config
    embeddings = PostNormEmbeddings(
        base.embeddings,
        kernels,
        padding=None if config.model_type in _COUNTS_FROM_ZERO else config.pad_token_id,
        projection=getattr(base, "embeddings_project", None),
    )

    def layer(module: Any) -> PostNormLayer:
        own, mixed = module.attention.self, module.attention.output
        modules = LayerModules.of_bert(
            module, (own.query, own.key, own.value), (mixed.dense, mixed.LayerNorm)
        )
        return PostNormLayer.of(
            modules, kernels, heads=config.num_attention_heads, activation=config.hidden_act
        )

    return PostNormForward(embeddings, kernels.stack(base.encoder.layer, layer), head)


def _own_head(model: Any) -> Head:
    if model.config.model_type == "bert":
        return classifier("cls", model.bert.pooler.dense, "tanh", model.classifier)
    activation = "gelu" if model.config.model_type == "electra" else "tanh"
    return classifier("cls", model.classifier.dense, activation, model.classifier.out_proj)


FAMILY = Family(
    model_types=("bert", "roberta", "xlm-roberta", "camembert", "electra"),
    why_unsupported=_why_unsupported,
    forward=_forward,
    own_head=_own_head,
    modules=BertModules,
)
