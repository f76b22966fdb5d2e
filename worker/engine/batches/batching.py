"""Pack pairs into batches by tokens, not by rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from worker.engine.batches.pairs import EncodedWindow
from worker.engine.batches.ragged import exclusive_cumsum, ragged_arange

# oneDNN compiles a kernel for each number of rows that it meets; multiples keep those few.
ROW_STEP = 64


class LengthGroup(NamedTuple):
    """A run of `n_pairs` pairs of the same `length`, from token `start` of the batch on."""

    start: int
    n_pairs: int
    length: int


@dataclass(frozen=True)
class TokenBatch:
    """The tokens of a batch: pairs one after the other, longest first, without padding.

    Attributes:
        ids: int32 (tokens,).
        types: int32 (tokens,), or None if the model is given none.
        positions: int32 (tokens,), counted from 0 within each pair.
        starts: int32 (pairs + 1,), the first token of each pair, and the number of tokens.
        groups: the runs of equal length, on the host.
    """

    ids: torch.Tensor
    types: torch.Tensor | None
    positions: torch.Tensor
    starts: torch.Tensor
    groups: tuple[LengthGroup, ...]

    @classmethod
    def of(cls, window: EncodedWindow, pairs: np.ndarray) -> TokenBatch:
        """Gather pairs of a window.

        Args:
            window: the encoded pairs.
            pairs: int64 (pairs,), indices into the window, longest pair first.
        """
        lengths = window.lengths[pairs]
        tokens = ragged_arange(window.starts[pairs], lengths)
        types = None if window.types is None else window.types[tokens].astype(np.int32)
        pair_starts = exclusive_cumsum(lengths)
        starts = np.append(pair_starts, lengths.sum()).astype(np.int32)
        positions = ragged_arange(np.zeros_like(lengths), lengths).astype(np.int32)
        edges = np.flatnonzero(np.diff(lengths)) + 1
        runs = np.split(np.arange(len(lengths)), edges)
        return cls(
            ids=torch.from_numpy(window.ids[tokens]),
            types=None if types is None else torch.from_numpy(types),
            positions=torch.from_numpy(positions),
            starts=torch.from_numpy(starts),
            groups=tuple(
                LengthGroup(int(pair_starts[run[0]]), len(run), int(lengths[run[0]]))
                for run in runs
            ),
        )

    @property
    def n_pairs(self) -> int:
        """The number of pairs."""
        return len(self.starts) - 1

    @property
    def first_tokens(self) -> torch.Tensor:
        """The index of each pair's first token, int32 (pairs,)."""
        return self.starts[:-1]

    @property
    def max_length(self) -> int:
        """The tokens of the longest pair."""
        return max(group.length for group in self.groups)

    def filled_up(self) -> TokenBatch:
        """Return the batch with unused tokens at its end, up to a multiple of ROW_STEP, on CPU."""
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
        """Return the batch on a device; CUDA copies run from pinned memory in the background."""
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
    """Yield the pairs of each batch, longest first; one pair may exceed the budget by itself.

    Args:
        lengths: int64 (pairs,), tokens.
        max_batch_tokens: the budget of a batch.
    """
    order = np.argsort(-lengths, kind="stable")
    ends = np.cumsum(lengths[order])
    start = 0
    while start < len(order):
        budget = max_batch_tokens + (ends[start - 1] if start else 0)
        stop = max(start + 1, int(np.searchsorted(ends, budget, side="right")))
        yield order[start:stop]
        start = stop


def padded_batches(lengths: np.ndarray, max_batch_tokens: int) -> Iterator[np.ndarray]:
    """Yield the pairs of each batch as `packed_batches`; padding counts towards the budget."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, max_batch_tokens // max(1, int(lengths[order[start]])))
        yield order[start : start + size]
        start += size
