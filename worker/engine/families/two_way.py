"""Llama's layers with attention both ways, without padding: EuroBERT, and decoders made encoders.

A decoder attends both ways where its config has `"is_causal": false`; see `create_causal_mask` of
transformers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from worker.engine.batches.batching import TokenBatch
from worker.engine.families.decoder import RmsNorm, why_unlike_llama
from worker.engine.families.family import Family, Kernels
from worker.engine.kernels.heads import SCORES, TOKENS, Dense, Head, Pooling, classifier
from worker.engine.kernels.layers import Embedding, Gated, fused, plus
from worker.engine.kernels.rotary import Rotary, Turn, paired_places

_ENCODER = "eurobert"


def _why_unsupported(config: Any) -> str | None:
    if config.model_type != _ENCODER and getattr(config, "is_causal", True):
        return "its tokens attend to earlier ones only"
    return why_unlike_llama(config)


class _TwoWay:
    """The `Forward`; its last layer computes only the rows that the head reads."""

    def __init__(self, base: Any, head: Head, kernels: Kernels) -> None:
        config, self._dtype = base.config, kernels.dtype
        self._words = Embedding(base.embed_tokens.weight, dtype=kernels.dtype)
        self._scale = config.hidden_size**0.5 if config.model_type == "gemma" else None
        self._rotary = Rotary(
            base.rotary_emb.inv_freq,
            config.max_position_embeddings,
            kernels.dtype,
            base.rotary_emb.attention_scaling,
        )
        self._layers = kernels.stack(base.layers, lambda layer: _Layer(layer, config, kernels))
        self._norm = RmsNorm(base.norm, config)
        self._head = head

    def forward(self, batch: TokenBatch) -> torch.Tensor:
        """Return logits as `Forward.forward`."""
        batch = batch.filled_up()
        words = self._words(batch.ids)
        x = F.embedding(words.places, words.table).to(self._dtype)
        if self._scale is not None:
            x = x * self._scale
        turn = self._rotary.at(batch.positions)
        for layer in self._layers.body:
            x = layer.every_token(x, batch, turn)
            del layer  # a passing one is freed before the next one is built
        last = self._layers.last
        rows = last.every_token if self._head.reads_every_token else last.first_token
        return self._head(self._norm(rows(x, batch, turn)), batch)


class _Layer:
    def __init__(self, module: Any, config: Any, kernels: Kernels) -> None:
        linear, own = kernels.linear, module.self_attn
        self._heads, self._key_heads = config.num_attention_heads, config.num_key_value_heads
        self._head_dim = own.head_dim
        self._attention = kernels.attention
        self._attention_norm = RmsNorm(module.input_layernorm, config)
        # A turn takes the two numbers next to each other, in every head.
        self._order = paired_places(own.head_dim).to(own.q_proj.weight.device)
        self._qkv = fused(linear, own.q_proj, own.k_proj, own.v_proj)
        self._query_norm, self._key_norm = (
            RmsNorm(getattr(own, name), config) if hasattr(own, name) else None
            for name in ("q_norm", "k_norm")
        )
        self._mix = fused(linear, own.o_proj)
        self._mlp_norm = RmsNorm(module.post_attention_layernorm, config)
        self._feed_forward = Gated(
            hidden=fused(linear, module.mlp.gate_proj, activation=config.hidden_act),
            gate=fused(linear, module.mlp.up_proj),
            narrow=fused(linear, module.mlp.down_proj),
        )

    def every_token(self, x: torch.Tensor, batch: TokenBatch, turn: Turn) -> torch.Tensor:
        return self._rest(x, self._attention.every_token(self._project(x, turn), batch))

    def first_token(self, x: torch.Tensor, batch: TokenBatch, turn: Turn) -> torch.Tensor:
        attended = self._attention.first_token(self._project(x, turn), batch)
        return self._rest(x[batch.first_tokens], attended)

    def _project(self, x: torch.Tensor, turn: Turn) -> torch.Tensor:
        """Return turned (tokens, 3, heads, head_dim); heads that share a key have copies of it."""
        heads = self._qkv(self._attention_norm(x)).view(len(x), -1, self._head_dim)
        ends = [self._heads, self._heads + self._key_heads]
        query, key, value = heads.tensor_split(ends, dim=1)
        if self._query_norm is not None and self._key_norm is not None:
            query, key = self._query_norm(query), self._key_norm(key)
        n_sharing = self._heads // self._key_heads
        qkv = x.new_empty(len(x), 3, self._heads, self._head_dim)
        qkv[:, 0] = query[..., self._order]
        qkv[:, 1] = key[..., self._order].repeat_interleave(n_sharing, dim=1)
        qkv[:, 2] = value.repeat_interleave(n_sharing, dim=1)
        return turn(qkv)

    def _rest(self, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        x = plus(self._mix, attended, x)
        return self._feed_forward.added_to(x, self._mlp_norm(x))


class _LastRead:
    """The last token of each pair that is not the padding token, as transformers finds it."""

    reads, writes = TOKENS, "sentence_embedding"

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id

    def __call__(self, x: torch.Tensor, batch: TokenBatch) -> torch.Tensor:
        """Compute the step."""
        places = []
        for group in batch.groups:
            rows = slice(group.start, group.start + group.n_pairs * group.length)
            is_read = batch.ids[rows].view(group.n_pairs, group.length) != self._pad_id
            count = torch.arange(group.length, device=x.device)
            starts = torch.arange(group.n_pairs, device=x.device) * group.length + group.start
            places.append(starts + (count * is_read).argmax(1))
        return x[torch.cat(places)]


def _own_head(model: Any) -> Head:
    config = model.config
    if config.model_type != _ENCODER:
        last = Dense.of(model.score, None, writes=SCORES)
        return Head([_LastRead(config.pad_token_id), last])
    if config.classifier_pooling != "late":
        pooling = "cls" if config.classifier_pooling == "bos" else "mean"
        return classifier(pooling, model.dense, "gelu", model.classifier)
    dense = Dense(model.dense.weight, model.dense.bias, F.gelu, reads=TOKENS, writes=TOKENS)
    out = Dense(model.classifier.weight, model.classifier.bias, None, reads=TOKENS, writes=TOKENS)
    return Head([dense, out, Pooling(("mean",), writes=SCORES)])


FAMILY = Family(
    model_types=(_ENCODER, "llama", "mistral", "qwen2", "qwen3", "gemma"),
    why_unsupported=_why_unsupported,
    forward=_TwoWay,
    own_head=_own_head,
)
