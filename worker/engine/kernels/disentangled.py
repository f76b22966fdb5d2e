"""DeBERTa's attention: content to content, content to position and position to content.

The two products with positions need one column for each distance of two tokens. In memory, row i of
such a product begins one column after row i + 1, so that a view with another stride puts distances
in the places of their keys. transformers gathers them, which takes several times as long.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from worker.engine.batches.batching import LengthGroup, TokenBatch

# Tokens of short pairs that are attended to at a time; more fall out of the cache.
_CHUNK_TOKENS = 128


@dataclass(frozen=True)
class Distances:
    """The vectors of distances, projected as keys and as queries.

    Attributes:
        keys: (heads, distances, head_dim) for content to position, or None.
        queries: the same for position to content.
        rows: int64 (2 * longest - 1,), the row of each distance query - key, from 1 - longest on.
    """

    keys: torch.Tensor | None
    queries: torch.Tensor | None
    rows: torch.Tensor

    def of_keys(self, first: int, last: int) -> torch.Tensor | None:
        """Return `keys` for each distance from `first` to `last`, in that order."""
        return None if self.keys is None else self.keys[:, self._rows(first, last)].float()

    def of_queries(self, first: int, last: int) -> torch.Tensor | None:
        """Return `queries` as `of_keys`."""
        return None if self.queries is None else self.queries[:, self._rows(first, last)].float()

    def _rows(self, first: int, last: int) -> torch.Tensor:
        zero = len(self.rows) // 2
        if first <= last:
            return self.rows[zero + first : zero + last + 1]
        return self.rows[zero + last : zero + first + 1].flip(0)


class DisentangledAttention:
    """The `Attention` of one layer, in fp32; it has no window."""

    def __init__(self, distances: Distances) -> None:
        self._distances = distances
        n_terms = 1 + sum(each is not None for each in (distances.keys, distances.queries))
        self._n_terms = n_terms

    def every_token(
        self, qkv: torch.Tensor, batch: TokenBatch, window: int | None = None
    ) -> torch.Tensor:
        """Return the output as `Attention.every_token`."""
        out = qkv.new_zeros(len(qkv), qkv.shape[2] * qkv.shape[3])
        for group in batch.groups:
            far = group.length - 1
            keys = self._distances.of_keys(far, -far)
            queries = self._distances.of_queries(-far, far)
            step = max(1, _CHUNK_TOKENS // group.length)
            for first in range(0, group.n_pairs, step):
                n_pairs = min(step, group.n_pairs - first)
                start = group.start + first * group.length
                chunk = LengthGroup(start, n_pairs, group.length)
                query, key, value = _heads(qkv, chunk)
                added = query.new_zeros(1, 1, 1)
                if keys is not None:
                    added = added + _by_place(query @ _each(keys, n_pairs).transpose(1, 2))
                if queries is not None:
                    by_key = _by_place(key @ _each(queries, n_pairs).transpose(1, 2))
                    added = added + by_key.transpose(1, 2)
                attended = self._attended(query, key, value, added)
                shaped = attended.view(n_pairs, -1, group.length, qkv.shape[3]).transpose(1, 2)
                rows = out[start : start + n_pairs * group.length]
                rows.view(n_pairs, group.length, *qkv.shape[2:]).copy_(shaped)
        return out

    def first_token(
        self, qkv: torch.Tensor, batch: TokenBatch, window: int | None = None
    ) -> torch.Tensor:
        """Return the output as `Attention.first_token`."""
        outs = []
        for group in batch.groups:
            far = group.length - 1
            query, key, value = _heads(qkv, group)
            query = query[:, :1]
            keys = self._distances.of_keys(0, -far)
            queries = self._distances.of_queries(0, -far)
            added = query.new_zeros(1, 1, 1)
            if keys is not None:
                added = added + query @ _each(keys, group.n_pairs).transpose(1, 2)
            if queries is not None:
                added = added + (key * _each(queries, group.n_pairs)).sum(2)[:, None]
            outs.append(self._attended(query, key, value, added).reshape(group.n_pairs, -1))
        return torch.cat(outs).to(qkv.dtype)

    def _attended(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, added: torch.Tensor
    ) -> torch.Tensor:
        scale = (query.shape[2] * self._n_terms) ** -0.5
        scores = torch.baddbmm(added, query, key.transpose(1, 2), beta=scale, alpha=scale)
        return torch.bmm(scores.softmax(-1), value)


def _heads(qkv: torch.Tensor, group: LengthGroup) -> tuple[torch.Tensor, ...]:
    """Return fp32 query, key and value of a group, each (pairs * heads, length, head_dim)."""
    rows = qkv[group.start : group.start + group.n_pairs * group.length].float()
    shaped = rows.view(group.n_pairs, group.length, *qkv.shape[1:])
    return tuple(
        part.transpose(1, 2).reshape(-1, group.length, qkv.shape[3]) for part in shaped.unbind(2)
    )


def _each(vectors: torch.Tensor, n_pairs: int) -> torch.Tensor:
    """Return (pairs * heads, distances, head_dim) for (heads, distances, head_dim)."""
    return vectors.expand(n_pairs, *vectors.shape).flatten(0, 1)


def _by_place(x: torch.Tensor) -> torch.Tensor:
    """Return (n, length, length) of (n, length, 2 * length - 1).

    Number j of row i was number j - i + length - 1.
    """
    n, length, width = x.shape
    strides = (x.stride(0), width - 1, 1)
    return x.as_strided((n, length, length), strides, x.storage_offset() + length - 1)
