"""Rotary positions: queries and keys turned by angles that grow with their position."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from worker.engine.batches.batching import TokenBatch
from worker.engine.kernels import fused_kernels
from worker.engine.kernels.attention import Attention
from worker.engine.kernels.compiled_rows import rotate, rows_kernels

# Turns queries and keys of (tokens, 3, heads, head_dim), in place where it can.
Turn = Callable[[torch.Tensor], torch.Tensor]
# Cosines and sines, fp32 (tokens, 1, head_dim / 2).
Angles = tuple[torch.Tensor, torch.Tensor]

# A whole number of blocks: a cosine at the end of a long tensor takes another code path.
_BLOCK = 64


class Rotary:
    """The turns of all positions, as complex numbers in fp32.

    They are a table, because torch computes a cosine at the end of a long tensor by other code than
    one in the middle, with other bits.
    """

    def __init__(
        self,
        frequencies: torch.Tensor,
        n_positions: int,
        dtype: torch.dtype,
        scale: float = 1.0,
    ) -> None:
        """Make the table.

        Args:
            frequencies: (head_dim / 2,), the angle from one position to the next.
            n_positions: the positions of the table.
            dtype: of queries and keys.
            scale: what turned numbers are multiplied by (`attention_scaling` of yarn).
        """
        self._frequencies, self._scale = frequencies.detach().float(), scale
        self._fill(n_positions)
        example = torch.empty(0, dtype=dtype, device=frequencies.device)
        self._kernels = rows_kernels(example, 2 * len(frequencies))

    def _fill(self, n_positions: int) -> None:
        n_filled = n_positions + -n_positions % _BLOCK
        places = torch.arange(n_filled, device=self._frequencies.device)
        angles = places[:, None].float() * self._frequencies
        turns = torch.complex(angles.cos() * self._scale, angles.sin() * self._scale)
        self._turns = turns[:n_positions]

    def angles(self, positions: torch.Tensor, n_positions: int) -> Angles:
        """Return the angles of positions (tokens,) for `turned`; the table grows as needed.

        Args:
            positions: below `n_positions`.
            n_positions: the positions that the table must have.
        """
        if n_positions > len(self._turns):
            self._fill(2 * n_positions)
        turns = self._turns[positions][:, None]
        return turns.real.contiguous(), turns.imag.contiguous()

    def at(self, positions: torch.Tensor) -> Turn:
        """Return the turn of int32 positions (tokens,); it takes numbers next to each other."""
        if self._kernels is not None:
            kernels, table = self._kernels, torch.view_as_real(self._turns).flatten(1)

            def turn_compiled(qkv: torch.Tensor) -> torch.Tensor:
                qkv = qkv.contiguous()
                rotate(kernels, qkv, table, positions)
                return qkv

            return turn_compiled
        turns = self._turns[positions][:, None, None]
        if fused_kernels.is_on(turns.device):
            parts = torch.view_as_real(turns)

            def turn_fused(qkv: torch.Tensor) -> torch.Tensor:
                return fused_kernels.run(turned_pairs, qkv, parts)

            return turn_fused

        def turn(qkv: torch.Tensor) -> torch.Tensor:
            heads = qkv.shape[2]
            pairs = torch.view_as_complex(qkv[:, :2].float().view(len(qkv), 2, heads, -1, 2))
            qkv[:, :2] = torch.view_as_real(pairs.mul_(turns)).flatten(-2)
            return qkv

        return turn


def turned(x: torch.Tensor, angles: Angles) -> torch.Tensor:
    """Return fp32 (tokens, heads, head_dim), with the halves of each head turned."""
    cosines, sines = angles
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)


def turned_pairs(qkv: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Return qkv (tokens, 3, heads, head_dim) with queries and keys turned.

    `turns` is fp32 (tokens, 1, 1, head_dim / 2, 2), cosines and sines. The kernel's compiler does
    not fuse complex numbers.
    """
    shape = (len(qkv), 2, qkv.shape[2], -1, 2)
    first, second = qkv[:, :2].float().reshape(*shape).unbind(-1)
    cosines, sines = turns.unbind(-1)
    pairs = (first * cosines - second * sines, first * sines + second * cosines)
    both = torch.stack(pairs, dim=-1).flatten(-2).to(qkv.dtype)
    return torch.cat([both, qkv[:, 2:]], dim=1)


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
