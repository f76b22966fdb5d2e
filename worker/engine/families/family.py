"""The description of one packed model family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from worker.engine.families.stack import MakeStack
from worker.engine.kernels.attention import Attention
from worker.engine.kernels.causal_attention import CausalAttention
from worker.engine.kernels.heads import Head
from worker.engine.kernels.layers import Forward, MakeLinear


@dataclass(frozen=True)
class Kernels:
    """The arithmetic that a packed forward is built with.

    Attributes:
        dtype: dtype of activations, norms and embeddings.
        linear: makes the linear layers of the precision.
        attention: the attention of the device and dtype.
        causal: the same for decoders.
        stack: makes the layers of a body.
    """

    dtype: torch.dtype
    linear: MakeLinear
    attention: Attention
    causal: CausalAttention
    stack: MakeStack


class MakeForward(Protocol):
    """Makes the packed forward of a family."""

    def __call__(self, base: Any, head: Head, kernels: Kernels) -> Forward:
        """Return the forward of a body of transformers under a head.

        Args:
            base: the body, with the weights as in their files, on its device; its `config`
                describes it.
            head: the head, in fp32.
            kernels: the arithmetic of the body.
        """
        ...


@dataclass(frozen=True)
class Family:
    """Architectures that one packed forward computes.

    Attributes:
        model_types: the values of `model_type` in config.json.
        why_unsupported: returns the setting of a config that the forward does not compute, or None.
        forward: makes the forward.
        own_head: returns the head of the family's `*ForSequenceClassification`.
        modules: makes the empty modules of that class without importing it; None if only
            transformers can. They have the attributes `config`, `architecture` and `base_model`.
        shares_prefixes: it is a decoder: what pairs have in common before their documents is
            computed once, and the score is read from a pair's last token.
    """

    model_types: tuple[str, ...]
    why_unsupported: Callable[[Any], str | None]
    forward: MakeForward
    own_head: Callable[[Any], Head]
    modules: Callable[[Any], Any] | None = None
    shares_prefixes: bool = False
