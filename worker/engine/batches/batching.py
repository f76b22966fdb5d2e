"""Which pairs go through the model together: tokens, not rows, make a batch full."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from worker.engine.batches.pairs import EncodedWindow
from worker.engine.batches.ragged import exclusive_cumsum, ragged_arange

# oneDNN compiles a kernel for each number of rows that it meets; a few numbers keep that short.
ROW_STEP = 256


class LengthGroup(NamedTuple):
    """A run of `n_pairs` pairs of the same `length`, from token `start` of the batch on."""

    start: int
    n_pairs: int
    length: int


@dataclass(frozen=True)
class TokenBatch:
    """Pairs laid out one after the other, longest first, without padding.

    Attributes:
        ids: int32 (tokens,).
        types: int32 (tokens,), or None where the model is given none.
        positions: int32 (tokens,), counted from 0 within each pair.
        starts: int32 (pairs + 1,), the first token of each pair, and the number of tokens.
        groups: the runs of equal length, known to the host.
    """

    ids: torch.Tensor
    types: torch.Tensor | None
    positions: torch.Tensor
    starts: torch.Tensor
    groups: tuple[LengthGroup, ...]

    @classmethod
    def of(cls, window: EncodedWindow, pairs: np.ndarray) -> TokenBatch:
        """Gather pairs of a window; `pairs` must be sorted by length."""
        lengths = window.lengths[pairs]
        tokens = ragged_arange(window.starts[pairs], lengths)
        types = None if window.types is None else window.types[tokens].astype(np.int32)
        starts = np.append(exclusive_cumsum(lengths), lengths.sum()).astype(np.int32)
        positions = ragged_arange(np.zeros_like(lengths), lengths).astype(np.int32)
        return cls(
            ids=torch.from_numpy(window.ids[tokens]),
            types=None if types is None else torch.from_numpy(types),
            positions=torch.from_numpy(positions),
            starts=torch.from_numpy(starts),
            groups=tuple(_groups(lengths)),
        )

    @property
    def n_pairs(self) -> int:
        return len(self.starts) - 1

    @property
    def first_tokens(self) -> torch.Tensor:
        return self.starts[:-1]

    @property
    def max_length(self) -> int:
        return max(group.length for group in self.groups)

    def filled_up(self) -> TokenBatch:
        """On CPU with rows of no pair at the end, up to a multiple of ROW_STEP."""
        missing = -len(self.ids) % ROW_STEP
        if self.ids.device.type != "cpu" or not missing:
            return self
        return replace(
            self,
            ids=F.pad(self.ids, (0, missing)),
            types=None if self.types is None else F.pad(self.types, (0, missing)),
            positions=F.pad(self.positions, (0, missing)),
        )

    def to(self, device: str) -> TokenBatch:
        """The same batch on a device; on CUDA through pinned memory, without waiting for it."""
        if device == "cpu":
            return self

        def move(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.pin_memory().to(device, non_blocking=True)

        return TokenBatch(
            ids=move(self.ids),
            types=None if self.types is None else move(self.types),
            positions=move(self.positions),
            starts=move(self.starts),
            groups=self.groups,
        )


def packed_batches(lengths: np.ndarray, max_batch_tokens: int) -> Iterator[np.ndarray]:
    """Pairs longest first, as many at a time as hold `max_batch_tokens` or fewer; at least one."""
    order = np.argsort(-lengths, kind="stable")
    ends = np.cumsum(lengths[order])
    start = 0
    while start < len(order):
        budget = max_batch_tokens + (ends[start - 1] if start else 0)
        stop = max(start + 1, int(np.searchsorted(ends, budget, side="right")))
        yield order[start:stop]
        start = stop


def padded_batches(lengths: np.ndarray, max_batch_tokens: int) -> Iterator[np.ndarray]:
    """The same for models that pad: the padding counts towards the budget."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, max_batch_tokens // max(1, int(lengths[order[start]])))
        yield order[start : start + size]
        start += size


def _groups(lengths: np.ndarray) -> Iterator[LengthGroup]:
    edges = np.flatnonzero(np.diff(lengths)) + 1
    starts = exclusive_cumsum(lengths)
    for run in np.split(np.arange(len(lengths)), edges):
        yield LengthGroup(int(starts[run[0]]), len(run), int(lengths[run[0]]))
