"""BERTs with rotary positions, without padding: gte, Nomic BERT and Jina's XLM-RoBERTa."""

from __future__ import annotations

from typing import Any

import torch

from worker.engine.families.family import Family, Kernels
from worker.engine.families.post_norm import PostNormEmbeddings, PostNormForward, PostNormLayer
from worker.engine.kernels.heads import Head, classifier
from worker.engine.kernels.layers import ACTIVATIONS, Gated, Linear, Norm, fused
from worker.engine.kernels.rotary import Rotary, RotaryAttention, paired


def _why_unsupported(config: Any) -> str | None:
    if config.hidden_act not in ACTIVATIONS:
        return f"the activation is {config.hidden_act}"
    if config.rope_parameters["rope_type"] != "default":
        return f"rotary positions are scaled ({config.rope_parameters['rope_type']})"
    width = config.hidden_size // config.num_attention_heads
    if (getattr(config, "head_dim", None) or width) != width:
        return "its heads have another width"
    return None


def _forward(base: Any, head: Head, kernels: Kernels) -> PostNormForward:
    config, linear, dtype = base.config, kernels.linear, kernels.dtype
    rotary = Rotary(base.rotary_emb.inv_freq, config.max_position_embeddings, dtype)
    attention = RotaryAttention(kernels.attention, rotary)

    def layer(module: Any) -> PostNormLayer:
        own = module.self_attn
        projections = (own.q_proj, own.k_proj, own.v_proj)
        weight = torch.cat([each.weight.detach() for each in projections])
        biases = [each.bias.detach() for each in projections if each.bias is not None]
        bias = torch.cat(biases) if biases else None
        return PostNormLayer(
            heads=config.num_attention_heads,
            qkv=fused(linear, paired(weight, bias, config.num_attention_heads)),
            attention=attention,
            mix=fused(linear, own.o_proj),
            mix_norm=Norm(module.post_attention_layernorm, dtype=dtype),
            feed_forward=_feed_forward(module.mlp, config.hidden_act, kernels),
            out_norm=Norm(module.post_mlp_layernorm, dtype=dtype),
        )

    embeddings = PostNormEmbeddings(base.embeddings, kernels)
    return PostNormForward(embeddings, kernels.stack(base.layers, layer), head)


def _feed_forward(mlp: Any, activation: str, kernels: Kernels) -> Linear:
    linear = kernels.linear
    if hasattr(mlp, "gate_proj"):
        return Gated(
            hidden=fused(linear, mlp.gate_proj, activation=activation),
            gate=fused(linear, mlp.up_proj),
            narrow=fused(linear, mlp.down_proj),
        )
    widen, narrow = fused(linear, mlp.fc1, activation=activation), fused(linear, mlp.fc2)
    return lambda x: narrow(widen(x))


def _own_head(model: Any) -> Head:
    if model.config.model_type == "jina_embeddings_v3":
        return classifier("cls", model.classifier.dense, "tanh", model.classifier.out_proj)
    return classifier("cls", model.base_model.pooler.dense, "tanh", model.classifier)


FAMILY = Family(
    model_types=("gte", "nomic_bert", "jina_embeddings_v3"),
    why_unsupported=_why_unsupported,
    forward=_forward,
    own_head=_own_head,
)
