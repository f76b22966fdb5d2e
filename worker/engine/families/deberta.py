"""DeBERTa v2 and v3 cross-encoders without padding: BERT's layers, distances in the attention."""

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
from worker.engine.kernels.disentangled import DisentangledAttention, Distances
from worker.engine.kernels.heads import Head, classifier
from worker.engine.kernels.layers import ACTIVATIONS, Norm, exact


def _why_unsupported(config: Any) -> str | None:
    if not config.relative_attention:
        return "it has no relative attention"
    if getattr(config, "conv_kernel_size", 0) > 0:
        return "it has a convolution"
    for setting in ("embedding_size", "attention_head_size"):
        if getattr(config, setting, None) is not None:
            return f"its config states {setting}"
    for name in (config.hidden_act, config.pooler_hidden_act):
        if name not in ACTIVATIONS:
            return f"the activation is {name}"
    return None


def _forward(base: Any, head: Head, kernels: Kernels) -> PostNormForward:
    config = base.config
    embedded = _embedded(base.encoder)
    rows = _rows(config)

    def layer(module: Any) -> PostNormLayer:
        own, mixed = module.attention.self, module.attention.output
        modules = LayerModules.of_bert(
            module, (own.query_proj, own.key_proj, own.value_proj), (mixed.dense, mixed.LayerNorm)
        )
        return PostNormLayer.of(
            modules,
            kernels,
            heads=config.num_attention_heads,
            activation=config.hidden_act,
            attention=DisentangledAttention(_distances(own, embedded, rows, kernels.dtype)),
        )

    embeddings = PostNormEmbeddings(base.embeddings, kernels)
    return PostNormForward(embeddings, kernels.stack(base.encoder.layer, layer), head)


def _embedded(encoder: Any) -> torch.Tensor:
    """Return the embeddings of distances in fp32, whatever the dtype of their file."""
    embedded: torch.Tensor = encoder.rel_embeddings.weight.detach().float()
    if "layer_norm" not in encoder.norm_rel_ebd:
        return embedded
    return Norm(encoder.LayerNorm, dtype=torch.float32)(embedded)


def _rows(config: Any) -> torch.Tensor:
    """Return the row of the embeddings of distances for each distance, from the lowest on."""
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    longest = config.max_position_embeddings
    distances = torch.arange(1 - longest, longest)
    most = config.max_relative_positions
    most = longest if most < 1 else most
    n_buckets = getattr(config, "position_buckets", -1)
    if n_buckets > 0:
        distances = make_log_bucket_position(distances, n_buckets, most).long()
    span = n_buckets if n_buckets > 0 else most
    return (distances + span).clamp(0, 2 * span - 1)


def _distances(
    own: Any, embedded: torch.Tensor, rows: torch.Tensor, dtype: torch.dtype
) -> Distances:
    """Project the embeddings of distances by a layer's own weights, once and for all."""

    def project(module: Any) -> torch.Tensor:
        projected = exact(module.weight, module.bias)(embedded)
        return projected.view(len(embedded), own.num_attention_heads, -1).transpose(0, 1).to(dtype)

    shared = own.share_att_key
    terms = own.pos_att_type
    return Distances(
        keys=project(own.key_proj if shared else own.pos_key_proj) if "c2p" in terms else None,
        queries=(
            project(own.query_proj if shared else own.pos_query_proj) if "p2c" in terms else None
        ),
        rows=rows.to(embedded.device),
    )


def _own_head(model: Any) -> Head:
    activation = model.config.pooler_hidden_act
    return classifier("cls", model.pooler.dense, activation, model.classifier)


FAMILY = Family(
    model_types=("deberta-v2",),
    why_unsupported=_why_unsupported,
    forward=_forward,
    own_head=_own_head,
)
