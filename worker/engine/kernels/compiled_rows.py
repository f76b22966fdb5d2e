"""Sums, norms and rotations of rows by the compiled kernels, in one pass over the memory."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch

from worker.engine.compiled.library import Library, library

_LANES = 16
_KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 3}


class Rows(NamedTuple):
    """Rows of a table.

    Attributes:
        table: (any number, width), in any float dtype.
        places: int32 (rows,), the row of the table for each row.
    """

    table: torch.Tensor
    places: torch.Tensor


class _Source(ctypes.Structure):
    _fields_ = (
        ("numbers", ctypes.c_void_p),
        ("places", ctypes.c_void_p),
        ("n_rows", ctypes.c_int32),
        ("kind", ctypes.c_int32),
    )


def rows_kernels(example: torch.Tensor, width: int) -> Library | None:
    """Return the kernels, or None if they do not support the tensor's device, dtype or width."""
    if example.device.type != "cpu" or width % _LANES:
        return None
    kernels = library()
    return kernels if kernels and kernels.has(example.dtype) else None


def norm_of_sum(
    kernels: Library,
    sources: Sequence[torch.Tensor | Rows],
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    eps: float,
    dtype: torch.dtype,
    *,
    keeps_sum: bool,
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Return the sum of up to three sources if it is wanted, and its layer normalisation.

    Args:
        kernels: the library.
        sources: each (rows, width), or rows of a table.
        weight: fp32 (width,).
        bias: as the weight.
        eps: what is added to the variance.
        dtype: of the results, (rows, width).
        keeps_sum: whether the sum is wanted.

    Raises:
        IndexError: a place is outside its table.
    """
    held = [
        Rows(one.table.contiguous(), one.places) if isinstance(one, Rows) else one.contiguous()
        for one in sources
    ]
    first = held[0]
    n_rows = len(first.places) if isinstance(first, Rows) else len(first)
    out = torch.empty(n_rows, len(weight), dtype=dtype)
    total = torch.empty_like(out) if keeps_sum else None
    described = (_Source * len(held))(*map(_described, held))
    kernels.call(
        "rankmill_norm",
        ctypes.cast(described, ctypes.c_void_p),
        len(held),
        weight,
        bias,
        total,
        out,
        *out.shape,
        eps,
        dtype == torch.bfloat16,
    )
    return total, out


def _described(source: torch.Tensor | Rows) -> _Source:
    if isinstance(source, Rows):
        table, places = source
        return _Source(table.data_ptr(), places.data_ptr(), len(table), _KINDS[table.dtype])
    return _Source(source.data_ptr(), None, len(source), _KINDS[source.dtype])


def rotate(
    kernels: Library, qkv: torch.Tensor, turns: torch.Tensor, positions: torch.Tensor
) -> None:
    """Turn queries and keys in place.

    Args:
        kernels: the library.
        qkv: (rows, 3, heads, head_dim), contiguous; two numbers that turn are neighbours.
        turns: fp32 (positions, head_dim), the cosine and the sine of each two numbers.
        positions: int32 (rows,).

    Raises:
        IndexError: a position has no turns.
    """
    rows, _, heads, head_dim = qkv.shape
    kernels.call(
        "rankmill_rotate",
        qkv,
        turns,
        positions,
        rows,
        len(turns),
        heads,
        head_dim,
        qkv.dtype == torch.bfloat16,
    )
