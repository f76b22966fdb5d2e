"""Pack pairs into batches by tokens, not by rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from worker.engine.batches.pairs import EncodedWindow
from worker.engine.batches.ragged import exclusive_cumsum, ragged_arange
from worker.engine.batches.segments import Prefixes, Segments
from worker.engine.batches.transfer import in_one_copy

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
        segments: where prefixes are shared; they come before the pairs, whose tokens are the rest.
    """

    ids: torch.Tensor
    types: torch.Tensor | None
    positions: torch.Tensor
    starts: torch.Tensor
    groups: tuple[LengthGroup, ...]
    segments: Segments | None = None

    @classmethod
    def of(cls, window: EncodedWindow, pairs: np.ndarray) -> TokenBatch:
        """Gather pairs of a window.

        Args:
            window: the encoded pairs.
            pairs: int64 (pairs,), indices into the window, as the window's batches are cut.
        """
        if window.prefixes is not None:
            return cls._sharing(window, window.prefixes, pairs)
        lengths = window.lengths[pairs]
        tokens = ragged_arange(window.starts[pairs], lengths)
        types = None if window.types is None else window.types[tokens].astype(np.int32)
        pair_starts = exclusive_cumsum(lengths)
        starts = np.append(pair_starts, lengths.sum()).astype(np.int32)
        positions = ragged_arange(np.zeros_like(lengths), lengths).astype(np.int32)
        return cls(
            ids=torch.from_numpy(window.ids[tokens]),
            types=None if types is None else torch.from_numpy(types),
            positions=torch.from_numpy(positions),
            starts=torch.from_numpy(starts),
            groups=_groups(lengths, pair_starts),
        )

    @classmethod
    def _sharing(cls, window: EncodedWindow, prefixes: Prefixes, pairs: np.ndarray) -> TokenBatch:
        """Gather each prefix once, then the rest of each pair."""
        shared, own = prefixes.shared[pairs], (prefixes.used - prefixes.shared)[pairs]
        with_prefix = np.flatnonzero(shared)
        _, first, numbers = np.unique(
            prefixes.of_pair[pairs][with_prefix], return_index=True, return_inverse=True
        )
        # Longest prefix first: a run is of one length.
        order = np.argsort(-shared[with_prefix][first], kind="stable")
        holders = with_prefix[first][order]
        prefix_of = np.full(len(pairs), -1)
        prefix_of[with_prefix] = np.argsort(order)[numbers]
        begins = window.starts[pairs]
        lengths = np.concatenate([shared[holders], own])
        starts = np.concatenate([begins[holders], begins + shared])
        firsts = np.concatenate([np.zeros_like(holders), shared])
        pair_starts = exclusive_cumsum(lengths)[len(holders) :]
        return cls(
            ids=torch.from_numpy(window.ids[ragged_arange(starts, lengths)]),
            types=None,
            positions=torch.from_numpy(ragged_arange(firsts, lengths).astype(np.int32)),
            starts=torch.from_numpy(np.append(pair_starts, lengths.sum()).astype(np.int32)),
            groups=_groups(own, pair_starts),
            segments=Segments.of(shared[holders], prefix_of, own),
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
        host = [self.ids, self.positions, self.starts]
        ids, positions, starts, *types = in_one_copy(
            host if self.types is None else [*host, self.types], device
        )
        return TokenBatch(
            ids=ids,
            types=types[0] if types else None,
            positions=positions,
            starts=starts,
            groups=self.groups,
            segments=None if self.segments is None else self.segments.to(device),
        )


def _groups(lengths: np.ndarray, starts: np.ndarray) -> tuple[LengthGroup, ...]:
    edges = np.flatnonzero(np.diff(lengths)) + 1
    runs = np.split(np.arange(len(lengths)), edges)
    return tuple(LengthGroup(int(starts[run[0]]), len(run), int(lengths[run[0]])) for run in runs)
