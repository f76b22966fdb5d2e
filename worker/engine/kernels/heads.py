"""Heads: from a body's hidden states to one logit for each pair, always in fp32.

A head is a chain of steps. Each step reads one named feature and writes one, like the modules of
Sentence Transformers. The heads of transformers' own classifiers are such chains, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional as F

from worker.engine.batches.batching import TokenBatch
from worker.engine.kernels.layers import ACTIVATIONS, Activation, Linear, Norm, exact, single_logit

TOKENS = "token_embeddings"
POOLED = "sentence_embedding"
SCORES = "scores"

# A whole number of vectors, because an activation's scalar path rounds differently.
_ACTIVATED_COLUMNS = 64


class Step(Protocol):
    """One module of a head.

    Its fp32 tensors are (tokens, width) before pooling, (pairs, width) after it.
    """

    @property
    def reads(self) -> str:
        """The feature that it reads."""
        ...

    @property
    def writes(self) -> str:
        """The feature that it writes."""
        ...

    def __call__(self, x: torch.Tensor, batch: TokenBatch) -> torch.Tensor:
        """Return the feature that it writes, for the one that it reads."""
        ...


class Head:
    """A chain of steps that ends in the scores.

    Attributes:
        reads_every_token: it needs (tokens, width); otherwise one token a pair, (pairs, width).
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        first, *rest = steps
        pools_first = isinstance(first, Pooling) and first.modes == ("cls",)
        pools_first = pools_first and all(step.reads != TOKENS for step in rest)
        self._steps = rest if pools_first else list(steps)
        self.reads_every_token = any(step.reads == TOKENS for step in self._steps)

    def __call__(self, hidden: torch.Tensor, batch: TokenBatch) -> torch.Tensor:
        """Return fp32 logits (pairs,) for hidden states of any precision."""
        features = {TOKENS if self.reads_every_token else POOLED: hidden.float()}
        for step in self._steps:
            features[step.writes] = step(features[step.reads], batch)
        return single_logit(features[SCORES])


def classifier(
    pooling: str, dense: Any, activation: str, out: Any, *, norm: nn.LayerNorm | None = None
) -> Head:
    """Return the head of a classifier of transformers.

    Args:
        pooling: a key of POOLINGS.
        dense: the first linear layer.
        activation: a key of ACTIVATIONS.
        out: the last linear layer, with one or two outputs.
        norm: the norm before the last layer, if it has one.
    """
    steps: list[Step] = [Pooling((pooling,)), Dense.of(dense, ACTIVATIONS[activation])]
    if norm is not None:
        steps.append(Normed(Norm(norm, dtype=torch.float32)))
    return Head([*steps, Dense.of(out, None, writes=SCORES)])


def linear_head(weight: torch.Tensor, bias: torch.Tensor | None) -> Head:
    """Return the head that is one linear layer, (1 or 2, width), on a pair's last token."""
    return Head([Dense(weight, bias, None, writes=SCORES)])


@dataclass(frozen=True)
class Pooling:
    """Pool hidden states of tokens to those of pairs; several modes are concatenated."""

    modes: tuple[str, ...]
    reads: str = TOKENS
    writes: str = POOLED

    def __call__(self, x: torch.Tensor, batch: TokenBatch) -> torch.Tensor:
        """Compute the step."""
        return torch.cat([POOLINGS[mode](x, batch) for mode in self.modes], dim=-1)


def _by_group(
    x: torch.Tensor, batch: TokenBatch, reduce: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Reduce (pairs, length, width) to (pairs, width), one run of equal lengths at a time."""
    pooled = []
    for group in batch.groups:
        rows = x[group.start : group.start + group.n_pairs * group.length]
        pooled.append(reduce(rows.reshape(group.n_pairs, group.length, -1)))
    return torch.cat(pooled)


def _weighted_mean(rows: torch.Tensor) -> torch.Tensor:
    """Return the mean over tokens weighted 1, 2, 3, … by their position."""
    weights = torch.arange(1, rows.shape[1] + 1, dtype=rows.dtype, device=rows.device)
    return (rows * weights[:, None]).sum(1) / weights.sum()


# The names are those of `sentence_transformers.sentence_transformer.modules.Pooling`.
POOLINGS: dict[str, Callable[[torch.Tensor, TokenBatch], torch.Tensor]] = {
    "cls": lambda x, batch: x[batch.first_tokens],
    "lasttoken": lambda x, batch: x[batch.starts[1:] - 1],
    "max": lambda x, batch: _by_group(x, batch, lambda rows: rows.amax(1)),
    "mean": lambda x, batch: _by_group(x, batch, lambda rows: rows.sum(1) / rows.shape[1]),
    "mean_sqrt_len_tokens": lambda x, batch: _by_group(
        x, batch, lambda rows: rows.sum(1) / rows.shape[1] ** 0.5
    ),
    "weightedmean": lambda x, batch: _by_group(x, batch, _weighted_mean),
}


class Dense:
    """A linear layer with an activation; optionally the input is added to its output."""

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        activation: Activation | None,
        *,
        residual: Linear | None = None,
        reads: str = POOLED,
        writes: str = POOLED,
    ) -> None:
        self.reads = reads
        self.writes = writes
        self._width = len(weight)
        self._activation = activation
        self._residual = residual
        missing = 0 if activation is None else -len(weight) % _ACTIVATED_COLUMNS
        padded = None if bias is None else F.pad(bias, (0, missing))
        self._linear = exact(F.pad(weight, (0, 0, 0, missing)), padded)

    @classmethod
    def of(cls, layer: Any, activation: Activation | None, *, writes: str = POOLED) -> Dense:
        """Make the step of a linear layer of torch."""
        return cls(layer.weight, layer.bias, activation, writes=writes)

    def __call__(self, x: torch.Tensor, batch: TokenBatch) -> torch.Tensor:
        """Compute the step."""
        out = self._linear(x)
        if self._activation is not None:
            out = self._activation(out)[:, : self._width]
        if self._residual is not None:
            out = out + self._residual(x)
        return out.contiguous()


@dataclass(frozen=True)
class Normed:
    """A normalisation of each row: layer normalisation, or unit length."""

    norm: Callable[[torch.Tensor], torch.Tensor]
    reads: str = POOLED
    writes: str = POOLED

    def __call__(self, x: torch.Tensor, batch: TokenBatch) -> torch.Tensor:
        """Compute the step."""
        return self.norm(x)
