"""How many tokens a batch may hold: measured on the device once, not guessed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from worker.engine.batching import TokenBatch
from worker.engine.layers import Forward
from worker.engine.pairs import EncodedWindow

# Throughput is flat from 512 to 4096 tokens on CPU; the middle keeps activations in cache.
_CPU_TOKENS = 2048

# More than this keeps no GPU busier, and makes a window's last batch ragged.
_MOST_CUDA_TOKENS = 131_072
_PROBE_TOKENS = 16_384
_SAFE_SHARE = 0.8


class _Key(NamedTuple):
    model: str
    precision: str
    device: str
    max_length: int


_found: dict[_Key, int] = {}


def default_budget(
    forward: Forward, *, model: str, precision: str, device: str, max_length: int
) -> int:
    """`max_batch_tokens` for a model on a device; on CUDA found by a short probe, then kept."""
    if torch.device(device).type != "cuda":
        return _CPU_TOKENS
    key = _Key(model, precision, device, max_length)
    if key not in _found:
        _found[key] = _probe(forward, device, max_length)
    return _found[key]


@torch.inference_mode()
def _probe(forward: Forward, device: str, max_length: int) -> int:
    """What fits into most of the free memory, by the bytes a token of a small batch takes."""
    batch = _batch_of(_PROBE_TOKENS, min(max_length, _PROBE_TOKENS)).to(device)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    forward.forward(batch)
    torch.cuda.synchronize(device)
    bytes_per_token = (torch.cuda.max_memory_allocated(device) - before) / len(batch.ids)
    free, _ = torch.cuda.mem_get_info(device)
    return min(_MOST_CUDA_TOKENS, int(free * _SAFE_SHARE / bytes_per_token))


def _batch_of(n_tokens: int, length: int) -> TokenBatch:
    """A batch of equal pairs; token 1 is in every vocabulary."""
    n_pairs = max(1, n_tokens // length)
    window = EncodedWindow(
        ids=np.ones(n_pairs * length, dtype=np.int32),
        types=None,
        lengths=np.full(n_pairs, length, dtype=np.int64),
        truncated=np.zeros(n_pairs, dtype=bool),
        pair_of_row=np.arange(n_pairs),
    )
    return TokenBatch.of(window, np.arange(n_pairs))
