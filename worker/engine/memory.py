"""How many tokens a batch may hold: measured on the device once, not guessed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from worker.engine.batching import TokenBatch
from worker.engine.faults import DeviceFullError, fault_of
from worker.engine.layers import Forward
from worker.engine.pairs import EncodedWindow
from worker.engine.room import release

# Throughput is flat from 512 to 4096 tokens on CPU; the middle keeps activations in cache.
_CPU_TOKENS = 2048

# More than this keeps no GPU busier, and makes a window's last batch ragged.
_MOST_CUDA_TOKENS = 131_072
_PROBE_TOKENS = 16_384
_LEAST_TOKENS = 512
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
    """What fits into most of the free memory, by the bytes a token of a small batch takes.

    Raises:
        DeviceFullError: not even a little fits.
    """
    n_tokens = _PROBE_TOKENS
    while True:
        bytes_per_token = _bytes_per_token(forward, device, min(max_length, n_tokens), n_tokens)
        release(device)
        if bytes_per_token is not None:
            break
        if n_tokens <= _LEAST_TOKENS:
            raise DeviceFullError(f"{device} has no room for {n_tokens} tokens")
        n_tokens //= 2
    free, _ = torch.cuda.mem_get_info(device)
    fitting = int(free * _SAFE_SHARE / max(1.0, bytes_per_token))
    return min(_MOST_CUDA_TOKENS, max(_LEAST_TOKENS, fitting))


def _bytes_per_token(forward: Forward, device: str, length: int, n_tokens: int) -> float | None:
    """None where the device has no room for a batch of so many tokens."""
    n_pairs = max(1, n_tokens // length)
    try:
        batch = TokenBatch.of(EncodedWindow.of_ones(n_pairs, length), np.arange(n_pairs))
        batch = batch.to(device)
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        forward.forward(batch)
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / len(batch.ids)
    except RuntimeError as error:
        if fault_of(error) != "memory":
            raise
    return None
