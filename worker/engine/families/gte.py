"""gte cross-encoders of transformers without padding: BERT with rotary positions, gated layers."""

from __future__ import annotations

from typing import Any

import torch

from worker.engine.families.family import Family, Kernels
from worker.engine.families.post_norm import PostNormEmbeddings, PostNormForward, PostNormLayer
from worker.engine.kernels.heads import Head, classifier
from worker.engine.kernels.layers import ACTIVATIONS, Gated, Norm, fused
from worker.engine.kernels.rotary import Rotary, RotaryAttention, paired


def _why_unsupported(config: Any) -> str | None:
    if config.hidden_act not in ACTIVATIONS:
        return f"the activation is {config.hidden_act}"
    if config.rope_parameters["rope_type"] != "default":
        return f"rotary positions are scaled ({config.rope_parameters['rope_type']})"
    if getattr(config, "head_dim", None) is not None:
        return "its config states head_dim"
    return None


def _forward(base: Any, head: Head, kernels: Kernels) -> PostNormForward:
    config, linear, dtype = base.config, kernels.linear, kernels.dtype
    rotary = Rotary(base.rotary_emb.inv_freq, config.max_position_embeddings, dtype)
    attention = RotaryAttention(kernels.attention, rotary)

    def layer(module: Any) -> PostNormLayer:
        own, mlp = module.self_attn, module.mlp
        projections = (own.q_proj, own.k_proj, own.v_proj)
        weight = torch.cat([each.weight.detach() for each in projections])
        bias = torch.cat([each.bias.detach() for each in projections])
        gate, up, down = mlp.gate_proj, mlp.up_proj, mlp.down_proj
        return PostNormLayer(
            heads=config.num_attention_heads,
            qkv=fused(linear, paired(weight, bias, config.num_attention_heads)),
            attention=attention,
            mix=fused(linear, own.o_proj),
            mix_norm=Norm(module.post_attention_layernorm, dtype=dtype),
            feed_forward=Gated(
                hidden=linear(gate.weight, gate.bias, activation=config.hidden_act),
                gate=linear(up.weight, up.bias),
                narrow=linear(down.weight, down.bias),
            ),
            out_norm=Norm(module.post_mlp_layernorm, dtype=dtype),
        )

    embeddings = PostNormEmbeddings(base.embeddings, kernels)
    return PostNormForward(embeddings, kernels.stack(base.layers, layer), head)


def _own_head(model: Any) -> Head:
    return classifier("cls", model.gte.pooler.dense, "tanh", model.classifier)


FAMILY = Family(
    model_types=("gte",),
    why_unsupported=_why_unsupported,
    forward=_forward,
    own_head=_own_head,
)
