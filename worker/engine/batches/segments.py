"""Prefixes that pairs share, and the segments of a batch in which each is computed once.

A pair's prefix ends where its document begins, whatever else is in its batch. So its bits do not
depend on the pairs that it is scored with.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from worker.engine.batches.ragged import exclusive_cumsum, ragged_arange
from worker.engine.batches.transfer import in_one_copy


@dataclass(frozen=True)
class Prefixes:
    """The prefix of each pair of a window.

    Attributes:
        used: int64 (pairs,), tokens up to the one that the score is read from.
        shared: int64 (pairs,), tokens of the prefix, fewer than `used`; 0 for none.
        of_pair: int64 (pairs,), the number of the prefix; equal prefixes have one number.
    """

    used: np.ndarray
    shared: np.ndarray
    of_pair: np.ndarray

    @classmethod
    def none(cls, lengths: np.ndarray) -> Prefixes:
        """Return pairs of these lengths that share nothing."""
        nothing = np.zeros_like(lengths)
        return cls(used=lengths, shared=nothing, of_pair=nothing)

    def n_computed(self, pairs: np.ndarray) -> int:
        """Return the tokens that a batch of these pairs computes: each prefix once."""
        first = np.unique(self.of_pair[pairs], return_index=True)[1]
        own = (self.used - self.shared)[pairs]
        return int(own.sum() + self.shared[pairs[first]].sum())


class Run(NamedTuple):
    """Segments next to each other with as many tokens and as many shared ones.

    Attributes:
        start: the first token of the first segment.
        n: the number of segments.
        length: tokens of each segment.
        n_shared: tokens of the prefix of each.
        key_start: the first of its entries in `Segments.key_rows`.
    """

    start: int
    n: int
    length: int
    n_shared: int
    key_start: int

    @property
    def rows(self) -> slice:
        """The tokens of the segments."""
        return slice(self.start, self.start + self.n * self.length)

    @property
    def n_keys(self) -> int:
        """The tokens that the last token of each segment attends to."""
        return self.n_shared + self.length

    @property
    def keys(self) -> slice:
        """Its entries in `Segments.key_rows`."""
        return slice(self.key_start, self.key_start + self.n * self.n_keys)


@dataclass(frozen=True)
class Segments:
    """The tokens of a batch: first each prefix once, then the rest of each pair.

    Attributes:
        ends: int32 (segments + 1,), the first token of each segment, and the number of tokens.
        key_ends: int32 (segments + 1,), the same for its keys.
        key_rows: int64 (keys,), the tokens that each segment attends to: its prefix, then its own.
        prefixes: the runs of the prefixes, on the host.
        pairs: the runs of the pairs, on the host.
    """

    ends: torch.Tensor
    key_ends: torch.Tensor
    key_rows: torch.Tensor
    prefixes: tuple[Run, ...]
    pairs: tuple[Run, ...]

    @classmethod
    def of(cls, prefix_lengths: np.ndarray, prefix_of: np.ndarray, own: np.ndarray) -> Segments:
        """Lay out a batch.

        Args:
            prefix_lengths: int64 (prefixes,), each of one token or more.
            prefix_of: int64 (pairs,), the prefix of each pair; -1 for none.
            own: int64 (pairs,), tokens of each pair after its prefix.
        """
        n_prefixes = len(prefix_lengths)
        lengths = np.concatenate([prefix_lengths, own])
        starts = exclusive_cumsum(lengths)
        n_shared = np.zeros_like(lengths)
        shared_at = np.zeros_like(lengths)
        has_prefix = np.flatnonzero(prefix_of >= 0)
        n_shared[n_prefixes + has_prefix] = prefix_lengths[prefix_of[has_prefix]]
        shared_at[n_prefixes + has_prefix] = starts[prefix_of[has_prefix]]
        # The keys of a segment are two ranges of tokens.
        ranges = np.stack([shared_at, starts], axis=1).reshape(-1)
        counts = np.stack([n_shared, lengths], axis=1).reshape(-1)
        key_starts = exclusive_cumsum(n_shared + lengths)
        shapes = np.stack([lengths, n_shared], axis=1)

        def runs(first: int, stop: int) -> tuple[Run, ...]:
            edges = np.flatnonzero(np.diff(shapes[first:stop], axis=0).any(axis=1)) + first + 1
            begins = [first, *edges.tolist(), stop] if stop > first else []
            return tuple(
                Run(
                    start=int(starts[begin]),
                    n=end - begin,
                    length=int(lengths[begin]),
                    n_shared=int(n_shared[begin]),
                    key_start=int(key_starts[begin]),
                )
                for begin, end in pairwise(begins)
            )

        return cls(
            ends=_ends(lengths),
            key_ends=_ends(n_shared + lengths),
            key_rows=torch.from_numpy(ragged_arange(ranges, counts)),
            prefixes=runs(0, n_prefixes),
            pairs=runs(n_prefixes, len(lengths)),
        )

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs in the order of their tokens."""
        return self.prefixes + self.pairs

    @property
    def pair_key_ends(self) -> torch.Tensor:
        """`key_ends` of the pairs alone, int32 (pairs + 1,), counted from their own first key."""
        ends = self.key_ends[sum(run.n for run in self.prefixes) :]
        return ends - ends[0]

    @property
    def pair_key_rows(self) -> torch.Tensor:
        """`key_rows` of the pairs alone."""
        return self.key_rows[self.pairs[0].key_start :]

    def to(self, device: str) -> Segments:
        """Return the segments on a device; CUDA copies run from pinned memory in the background."""
        if torch.device(device).type != "cuda":
            return self
        ends, key_ends, key_rows = in_one_copy([self.ends, self.key_ends, self.key_rows], device)
        return replace(self, ends=ends, key_ends=key_ends, key_rows=key_rows)


def _ends(lengths: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.append(0, np.cumsum(lengths)).astype(np.int32))
