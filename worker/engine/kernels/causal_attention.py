"""Attention of decoders over packed pairs: each token attends to its prefix and to its own past.

A pair's keys are those of its shared prefix, then its own. Nothing is padded.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch.nn import functional as F

from worker.engine.batches.segments import Run, Segments

# Queries at a time: a block does not compute the scores of keys after its last query. A block's
# mask is small however long a text is.
_BLOCK = 128

# SDPA's CPU kernel takes this many queries at a time. Fewer are summed in an order that depends on
# the number of segments, so they are filled up.
_LEAST_QUERIES = 32


class CausalAttention(Protocol):
    """Attention over the segments of a batch.

    `query` is (tokens, heads, head_dim), `key` and `value` are (tokens, fewer heads, head_dim). The
    heads are those of grouped-query attention: as many queries as fit share a key.
    """

    def every_token(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments
    ) -> torch.Tensor:
        """Return the output of every token, (tokens, heads * head_dim)."""
        ...

    def last_token(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments
    ) -> torch.Tensor:
        """Return the output of each pair's last token, (pairs, heads * head_dim).

        `query` is (pairs, heads, head_dim): that of the last tokens.
        """
        ...


class GroupedCausalAttention:
    """The `CausalAttention` of CPUs, and of fp32 on any device: SDPA for each run, in fp32.

    A run's shapes depend on its pairs' lengths only, so that a pair's bits do, too.
    """

    def every_token(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments
    ) -> torch.Tensor:
        """Return the output as `CausalAttention.every_token`."""
        out = query.new_zeros(query.shape)
        for run in segments.runs:
            keys, values = _of_run(key, run, segments), _of_run(value, run, segments)
            queries = query[run.rows].view(run.n, run.length, *query.shape[1:])
            outs = out[run.rows].view(queries.shape)
            for start in range(0, run.length, _BLOCK):
                rows = slice(start, min(start + _BLOCK, run.length))
                seen = run.n_shared + rows.stop
                outs[:, rows] = _attend(queries[:, rows], keys[:, :seen], values[:, :seen])
        return out.flatten(1).to(value.dtype)

    def last_token(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments
    ) -> torch.Tensor:
        """Return the output as `CausalAttention.last_token`."""
        outs, first = [], 0
        for run in segments.pairs:
            keys, values = _of_run(key, run, segments), _of_run(value, run, segments)
            outs.append(_attend(query[first : first + run.n, None], keys, values))
            first += run.n
        return torch.cat(outs).flatten(1).to(value.dtype)


def _of_run(part: torch.Tensor, run: Run, segments: Segments) -> torch.Tensor:
    """Return the keys or values of a run, fp32 (segments, keys, heads, head_dim)."""
    rows = part[segments.key_rows[run.keys]] if run.n_shared else part[run.rows]
    return rows.float().view(run.n, run.n_keys, *part.shape[1:])


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Attend from the last tokens to all; the shapes are (segments, tokens, heads, head_dim).

    The queries that share a key are rows of one product, so that no key is copied for them.
    """
    n, n_queries, n_heads, head_dim = query.shape
    n_keys, n_key_heads = key.shape[1:3]
    n_sharing = n_heads // n_key_heads
    rows = query.float().view(n, n_queries, n_key_heads, n_sharing, head_dim)
    rows = rows.permute(0, 2, 3, 1, 4).reshape(n, n_key_heads, n_sharing * n_queries, head_dim)
    mask = None
    if n_queries > 1:
        future = torch.full((n_queries, n_keys), float("-inf"), device=query.device)
        mask = future.triu_(n_keys - n_queries + 1).repeat(n_sharing, 1)
    n_rows = n_sharing * n_queries
    missing = max(0, _LEAST_QUERIES - n_rows)
    if missing:
        rows = F.pad(rows, (0, 0, 0, missing))
        mask = None if mask is None else F.pad(mask, (0, 0, 0, missing))
    out = F.scaled_dot_product_attention(
        rows, key.transpose(1, 2), value.transpose(1, 2), attn_mask=mask
    )
    shaped = out[:, :, :n_rows].reshape(n, n_key_heads, n_sharing, n_queries, head_dim)
    return shaped.permute(0, 3, 1, 2, 4).reshape(n, n_queries, n_heads, head_dim)
