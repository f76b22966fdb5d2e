"""ModernBERT cross-encoders without padding: rotary positions, local and global attention."""

from __future__ import annotations

from typing import Any

import torch

from worker.engine.batches.batching import TokenBatch
from worker.engine.families.family import Family, Kernels
from worker.engine.kernels.heads import Head, classifier
from worker.engine.kernels.layers import ACTIVATIONS, Embedding, Gated, Norm, fused
from worker.engine.kernels.rotary import Rotary, Turn, paired

_LOCAL = "sliding_attention"


def _why_unsupported(config: Any) -> str | None:
    for name in (config.hidden_activation, config.classifier_activation):
        if name not in ACTIVATIONS:
            return f"the activation is {name}"
    kinds = {rope["rope_type"] for rope in config.rope_parameters.values()}
    if kinds != {"default"}:
        return f"rotary positions are scaled ({', '.join(sorted(kinds))})"
    return None


class _ModernBert:
    """The `Forward`; its last layer computes only the rows that the head reads."""

    def __init__(self, base: Any, head: Head, kernels: Kernels) -> None:
        config, dtype = base.config, kernels.dtype
        self._words = Embedding(base.embeddings.tok_embeddings.weight, dtype=dtype)
        self._norm = Norm(base.embeddings.norm, dtype=dtype)
        self._rotaries = {
            kind: Rotary(
                getattr(base.rotary_emb, f"{kind}_inv_freq"), config.max_position_embeddings, dtype
            )
            for kind in set(config.layer_types)
        }
        self._layers = kernels.stack(base.layers, lambda layer: _Layer(layer, config, kernels))
        self._final_norm = Norm(base.final_norm, dtype=dtype)
        self._head = head

    def forward(self, batch: TokenBatch) -> torch.Tensor:
        """Return logits as `Forward.forward`."""
        batch = batch.filled_up()
        x = self._norm(self._words(batch.ids))
        turns = {kind: rotary.at(batch.positions) for kind, rotary in self._rotaries.items()}
        for layer in self._layers.body:
            x = layer.every_token(x, batch, turns)
            del layer  # a passing one is freed before the next one is built
        last = self._layers.last
        rows = last.every_token if self._head.reads_every_token else last.first_token
        return self._head(self._final_norm(rows(x, batch, turns)), batch)


def _own_head(model: Any) -> Head:
    config = model.config
    return classifier(
        config.classifier_pooling,
        model.head.dense,
        config.classifier_activation,
        model.classifier,
        norm=model.head.norm,
    )


_Turns = dict[str, Turn]


class _Layer:
    def __init__(self, module: Any, config: Any, kernels: Kernels) -> None:
        linear, dtype = kernels.linear, kernels.dtype
        first = module.layer_idx == 0  # the embeddings are normalised already
        self._kind = config.layer_types[module.layer_idx]
        self._window = config.sliding_window if self._kind == _LOCAL else None
        self._heads = config.num_attention_heads
        self._attention = kernels.attention
        self._attention_norm = None if first else Norm(module.attn_norm, dtype=dtype)
        self._qkv = fused(
            linear, paired(module.attn.Wqkv.weight, module.attn.Wqkv.bias, self._heads)
        )
        self._mix = fused(linear, module.attn.Wo)
        self._mlp_norm = Norm(module.mlp_norm, dtype=dtype)
        # The hidden and the gate half of a gated layer, each with a contiguous output.
        gated = module.mlp.Wi
        weights = gated.weight.chunk(2)
        biases = (None, None) if gated.bias is None else gated.bias.chunk(2)
        self._feed_forward = Gated(
            hidden=linear(weights[0], biases[0], activation=config.hidden_activation),
            gate=linear(weights[1], biases[1]),
            narrow=fused(linear, module.mlp.Wo),
        )

    def every_token(self, x: torch.Tensor, batch: TokenBatch, turns: _Turns) -> torch.Tensor:
        qkv = self._project(x, turns)
        return self._rest(x, self._attention.every_token(qkv, batch, self._window))

    def first_token(self, x: torch.Tensor, batch: TokenBatch, turns: _Turns) -> torch.Tensor:
        attended = self._attention.first_token(self._project(x, turns), batch, self._window)
        return self._rest(x[batch.first_tokens], attended)

    def _project(self, x: torch.Tensor, turns: _Turns) -> torch.Tensor:
        normed = x if self._attention_norm is None else self._attention_norm(x)
        return turns[self._kind](self._qkv(normed).view(len(x), 3, self._heads, -1))

    def _rest(self, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        x, normed = self._mlp_norm.with_sum(x, self._mix(attended))
        return self._feed_forward.added_to(x, normed)


FAMILY = Family(
    model_types=("modernbert",),
    why_unsupported=_why_unsupported,
    forward=_ModernBert,
    own_head=_own_head,
)
