"""Decoders that rerank, without padding: Llama, Mistral, Qwen2, Qwen3 and Gemma.

A prefix that pairs share is computed once, and its keys and values serve all their documents. The
score is read from a pair's last token, by a classifier's head or by rows of the language model's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from worker.engine.batches.batching import TokenBatch
from worker.engine.batches.segments import Segments
from worker.engine.families.family import Family, Kernels
from worker.engine.kernels.heads import Head, linear_head
from worker.engine.kernels.layers import ACTIVATIONS, Embedding, Gated, fused, plus
from worker.engine.kernels.rotary import Angles, Rotary, turned

# The kinds of rotary positions whose angles do not depend on the length of a text.
_FIXED_ROTARIES = ("default", "linear", "llama3", "yarn")

# Angles of this many places are computed at first.
_FIRST_PLACES = 1024


def _why_unsupported(config: Any) -> str | None:
    if not getattr(config, "is_causal", True) or getattr(
        config, "use_bidirectional_attention", False
    ):
        return "its tokens attend to later ones"
    return why_unlike_llama(config)


def why_unlike_llama(config: Any) -> str | None:
    """Return the setting by which a config's layers are unlike those computed here, or None."""
    kinds = set(getattr(config, "layer_types", None) or ())
    if kinds - {"full_attention"} or getattr(config, "sliding_window", None) is not None:
        return "it attends within a sliding window"
    rotary = (config.rope_parameters or {}).get("rope_type", "default")
    if rotary not in _FIXED_ROTARIES:
        return f"its rotary positions are {rotary}"
    if config.hidden_act not in ACTIVATIONS:
        return f"the activation is {config.hidden_act}"
    return None


class _Decoder:
    """The `Forward`; its last layer computes only the rows that the head reads."""

    def __init__(self, base: Any, head: Head, kernels: Kernels) -> None:
        config = base.config
        self._dtype = kernels.dtype
        self._words = Embedding(base.embed_tokens.weight, dtype=kernels.dtype)
        self._scale = config.hidden_size**0.5 if config.model_type == "gemma" else None
        self._rotary = Rotary(
            base.rotary_emb.inv_freq,
            _FIRST_PLACES,
            kernels.dtype,
            base.rotary_emb.attention_scaling,
        )
        self._layers = kernels.stack(base.layers, lambda layer: _Layer(layer, config, kernels))
        self._norm = RmsNorm(base.norm, config)
        self._head = head

    def forward(self, batch: TokenBatch) -> torch.Tensor:
        """Return logits as `Forward.forward`."""
        segments = batch.segments or _unshared(batch)
        longest = max(run.n_keys for run in segments.runs)
        batch = batch.filled_up()
        words = self._words(batch.ids)
        x = F.embedding(words.places, words.table).to(self._dtype)
        if self._scale is not None:
            x = x * self._scale
        angles = self._rotary.angles(batch.positions, longest)
        for layer in self._layers.body:
            x = layer.every_token(x, angles, segments)
            del layer  # a passing one is freed before the next one is built
        last = (batch.starts[1:] - 1).long()
        x = self._layers.last.last_token(x, angles, segments, last)
        return self._head(self._norm(x), batch)


def _own_head(model: Any) -> Head:
    return linear_head(model.score.weight, model.score.bias)


def _unshared(batch: TokenBatch) -> Segments:
    lengths = np.repeat(
        [group.length for group in batch.groups], [group.n_pairs for group in batch.groups]
    )
    without = np.full(len(lengths), -1)
    return Segments.of(lengths[:0], without, lengths).to(str(batch.ids.device))


class RmsNorm:
    """Division by the root of the mean square, in fp32 within."""

    def __init__(self, module: Any, config: Any) -> None:
        weight = module.weight.detach().float()
        self._weight = weight + 1 if config.model_type == "gemma" else weight.clone()
        self._eps = config.rms_norm_eps

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return x, normalised over its last axis."""
        return F.rms_norm(x.float(), self._weight.shape, self._weight, self._eps).to(x.dtype)


class _Layer:
    def __init__(self, module: Any, config: Any, kernels: Kernels) -> None:
        linear, own = kernels.linear, module.self_attn
        self._head_dim = own.head_dim
        self._n_heads = (config.num_attention_heads, config.num_key_value_heads)
        self._attention = kernels.causal
        self._attention_norm = RmsNorm(module.input_layernorm, config)
        self._qkv = fused(linear, own.q_proj, own.k_proj, own.v_proj)
        has_norms = hasattr(own, "q_norm")
        self._query_norm = RmsNorm(own.q_norm, config) if has_norms else None
        self._key_norm = RmsNorm(own.k_norm, config) if has_norms else None
        self._mix = fused(linear, own.o_proj)
        self._mlp_norm = RmsNorm(module.post_attention_layernorm, config)
        self._feed_forward = Gated(
            hidden=fused(linear, module.mlp.gate_proj, activation=config.hidden_act),
            gate=fused(linear, module.mlp.up_proj),
            narrow=fused(linear, module.mlp.down_proj),
        )

    def every_token(self, x: torch.Tensor, angles: Angles, segments: Segments) -> torch.Tensor:
        query, key, value = self._project(x)
        query, key = turned(query, angles), turned(key, angles)
        return self._rest(x, self._attention.every_token(query, key, value, segments))

    def last_token(
        self, x: torch.Tensor, angles: Angles, segments: Segments, last: torch.Tensor
    ) -> torch.Tensor:
        query, key, value = self._project(x)
        query = turned(query[last], (angles[0][last], angles[1][last]))
        key = turned(key, angles)
        return self._rest(x[last], self._attention.last_token(query, key, value, segments))

    def _project(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        n_query, n_key = self._n_heads
        heads = self._qkv(self._attention_norm(x)).view(len(x), -1, self._head_dim)
        query, key, value = heads.tensor_split([n_query, n_query + n_key], dim=1)
        if self._query_norm is not None and self._key_norm is not None:
            query, key = self._query_norm(query), self._key_norm(key)
        return query, key, value

    def _rest(self, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        x = plus(self._mix, attended, x)
        return self._feed_forward.added_to(x, self._mlp_norm(x))


FAMILY = Family(
    model_types=("llama", "mistral", "qwen2", "qwen3", "gemma"),
    why_unsupported=_why_unsupported,
    forward=_Decoder,
    own_head=_own_head,
    shares_prefixes=True,
)
