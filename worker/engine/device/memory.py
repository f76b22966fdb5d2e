"""Memory of the device: the tokens that fit into a batch, and the memory that is left."""

from __future__ import annotations

import ctypes
import os
import re
from typing import NamedTuple

import numpy as np
import torch

from worker.engine.batches.batching import TokenBatch
from worker.engine.batches.pairs import EncodedWindow
from worker.engine.device.cudnn import without_cudnn
from worker.engine.device.faults import DeviceFullError, fault_of
from worker.engine.kernels.layers import Forward

# Throughput is flat from 512 to 4096 tokens on CPU; the middle keeps activations in cache.
_CPU_TOKENS = 2048

# Larger batches do not raise a GPU's use, and leave a window's last batch small.
_MOST_CUDA_TOKENS = 131_072
_PROBE_TOKENS = 16_384
_LEAST_TOKENS = 512
_SAFE_SHARE = 0.8

# Pauses between attempts at a batch that should fit: another process may use the memory.
PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)

# What glibc may keep of freed activations. Otherwise the system clears each page of the next one:
# 7% of a forward of MiniLM in fp32, and more on a busy machine.
_KEPT_BYTES = 2**27
_KEPT_BYTES_OF_ONE = 2**26
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h

# A CUDA context outside torch's own memory, and the desktop of a graphics card.
_OTHERS_BYTES = 2 * 2**30

_UNITS = {"bytes": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_ASKED = re.compile(r"tried to allocate ([0-9.]+) ?(bytes|[kmgt]ib)", re.IGNORECASE)


class _Key(NamedTuple):
    model: str
    precision: str
    device: str
    max_length: int


_budgets: dict[_Key, int] = {}


def default_budget(
    forward: Forward, *, model: str, precision: str, device: str, max_length: int
) -> int:
    """Return `max_batch_tokens` for a model on a device.

    On CUDA it is measured once per process, model, precision, device and length.

    Raises:
        DeviceFullError: the device has no memory for the smallest batch.
    """
    if torch.device(device).type != "cuda":
        return _CPU_TOKENS
    key = _Key(model, precision, device, max_length)
    if key not in _budgets:
        _budgets[key] = _probe(forward, device, max_length)
    return _budgets[key]


@torch.inference_mode()
@without_cudnn()
def _probe(forward: Forward, device: str, max_length: int) -> int:
    """Measure the bytes per token on a small batch; return the tokens that fit into free memory.

    Raises:
        DeviceFullError: the smallest batch does not fit.
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
    """Run a batch and return its bytes per token; None if the device has no room for it."""
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


def asks_too_much(message: str, device: str) -> bool:
    """Return whether a failed allocation exceeds the device's memory for activations."""
    asked = _ASKED.search(message)
    if asked is None:
        return False
    if torch.device(device).type == "cuda":
        # The weights hold the rest.
        capacity = torch.cuda.mem_get_info(device)[1] - torch.cuda.memory_allocated(device)
    else:
        capacity = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return float(asked[1]) * _UNITS[asked[2].lower()] > capacity


def is_ours_alone(device: str) -> bool:
    """Return whether other processes use little of the device's memory.

    On CPU always true: other processes are not measured there.
    """
    if torch.device(device).type != "cuda":
        return True
    free, total = torch.cuda.mem_get_info(device)
    others = total - free - torch.cuda.memory_reserved(device)
    return others <= max(_OTHERS_BYTES, total // 10)


def release(device: str) -> None:
    """Return unused memory to the device, or to the system.

    Call it after the exception of a full device is gone: its frames hold the activations.
    """
    if torch.device(device).type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.empty_cache()
    # glibc keeps what was freed below something that is still used.
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def keep_freed_memory() -> None:
    """Let the process keep freed activations for the next batch, instead of returning their pages.

    `release` returns them all the same.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES_OF_ONE)
