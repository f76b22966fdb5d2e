"""The description of one packed model family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from worker.engine.kernels.attention import Attention
from worker.engine.kernels.heads import Head
from worker.engine.kernels.layers import Forward, MakeLinear


@dataclass(frozen=True)
class Kernels:
    """The arithmetic that a packed forward is built with.

    Attributes:
        dtype: dtype of activations, norms and embeddings.
        linear: makes the linear layers of the precision.
        attention: the attention of the device and dtype.
    """

    dtype: torch.dtype
    linear: MakeLinear
    attention: Attention


class MakeForward(Protocol):
    """Makes the packed forward of a family."""

    def __call__(self, base: Any, head: Head, kernels: Kernels) -> Forward:
        """Return the forward of a body of transformers under a head.

        Args:
            base: the body, with fp32 weights on its device; its `config` describes it.
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
    """

    model_types: tuple[str, ...]
    why_unsupported: Callable[[Any], str | None]
    forward: MakeForward
    own_head: Callable[[Any], Head]
