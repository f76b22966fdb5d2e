"""Rotary positions: queries and keys turned by angles that grow with their position."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from worker.engine.batches.batching import TokenBatch
from worker.engine.kernels.attention import Attention
from worker.engine.kernels.compiled_rows import rotate, rows_kernels

# Turns queries and keys of (tokens, 3, heads, head_dim), in place where it can.
Turn = Callable[[torch.Tensor], torch.Tensor]


class Rotary:
    """Turns of two numbers next to each other, as complex numbers in fp32.

    They are a table, because a cosine at the end of a long tensor takes another code path, and gets
    other bits, than one in its middle.
    """

    def __init__(self, frequencies: torch.Tensor, n_positions: int, dtype: torch.dtype) -> None:
        """Make the table.

        Args:
            frequencies: (head_dim / 2,), the angle from one position to the next.
            n_positions: the positions of the table.
            dtype: of queries and keys.
        """
        frequencies = frequencies.detach().float()
        places = torch.arange(n_positions, device=frequencies.device)
        angles = places[:, None].float() * frequencies
        self._turns = torch.complex(angles.cos(), angles.sin())
        example = torch.empty(0, dtype=dtype, device=frequencies.device)
        self._kernels = rows_kernels(example, 2 * len(frequencies))

    def at(self, positions: torch.Tensor) -> Turn:
        """Return the turn of int32 positions (tokens,)."""
        if self._kernels is not None:
            kernels, table = self._kernels, torch.view_as_real(self._turns).flatten(1)

            def turn_compiled(qkv: torch.Tensor) -> torch.Tensor:
                qkv = qkv.contiguous()
                rotate(kernels, qkv, table, positions)
                return qkv

            return turn_compiled
        turns = self._turns[positions][:, None, None]

        def turn(qkv: torch.Tensor) -> torch.Tensor:
            heads = qkv.shape[2]
            pairs = torch.view_as_complex(qkv[:, :2].float().view(len(qkv), 2, heads, -1, 2))
            qkv[:, :2] = torch.view_as_real(pairs.mul_(turns)).flatten(-2)
            return qkv

        return turn


def paired(weight: torch.Tensor, bias: torch.Tensor | None, heads: int) -> nn.Linear:
    """Return the layer of query, key and value that puts the two numbers of a turn side by side.

    Query and key are permuted alike, which leaves their product unchanged.

    Args:
        weight: (3 * heads * head_dim, in), query first.
        bias: (3 * heads * head_dim,).
        heads: the number of attention heads.
    """
    n_out, n_in = weight.shape
    head_dim = n_out // (3 * heads)
    places = torch.arange(n_out).view(3, heads, head_dim)
    places[:2] = places[:2, :, paired_places(head_dim)]
    order = places.flatten()
    made = nn.Linear(n_in, n_out, bias=bias is not None, device="meta")
    made.weight = nn.Parameter(weight.detach()[order], requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach()[order], requires_grad=False)
    return made


def paired_places(head_dim: int) -> torch.Tensor:
    """Return the places in a head of the numbers that are turned together, one after the other."""
    return torch.arange(head_dim).view(2, head_dim // 2).t().flatten()


class RotaryAttention:
    """The `Attention` of another one, after the turns; `qkv` is of `paired` weights."""

    def __init__(self, attention: Attention, rotary: Rotary) -> None:
        self._attention = attention
        self._rotary = rotary

    def every_token(
        self, qkv: torch.Tensor, batch: TokenBatch, window: int | None = None
    ) -> torch.Tensor:
        """Return the output as `Attention.every_token`."""
        turned = self._rotary.at(batch.positions)(qkv)
        return self._attention.every_token(turned, batch, window)

    def first_token(
        self, qkv: torch.Tensor, batch: TokenBatch, window: int | None = None
    ) -> torch.Tensor:
        """Return the output as `Attention.first_token`."""
        turned = self._rotary.at(batch.positions)(qkv)
        return self._attention.first_token(turned, batch, window)
