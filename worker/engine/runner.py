"""Batches through the device: launched without waiting, results fetched one batch late."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch

from worker.engine.batching import TokenBatch
from worker.engine.layers import Forward
from worker.engine.pairs import EncodedWindow
from worker.engine.stats import BatchRun, OnBatch, unheard

CutBatches = Callable[[np.ndarray, int], Iterator[np.ndarray]]


class PairTooLargeError(RuntimeError):
    """A single pair does not fit into the device's memory.

    Attributes:
        row: the first row of the window that holds the pair.
        n_tokens: how long it is.
    """

    def __init__(self, row: int, n_tokens: int) -> None:
        super().__init__(
            f"pair {row} of the window ({n_tokens} tokens) does not fit into the device's memory "
            f"by itself; lower max_length"
        )
        self.row = row
        self.n_tokens = n_tokens


class Runner:
    """Runs a forward over the distinct pairs of windows.

    Attributes:
        max_batch_tokens: the budget; halved when the device runs out of memory, and only then.
        busy_s: seconds the device has spent in forwards.
    """

    def __init__(
        self,
        forward: Forward,
        *,
        device: str,
        cut: CutBatches,
        max_batch_tokens: int,
        on_batch: OnBatch = unheard,
    ) -> None:
        self._forward = forward
        self._device = device
        self._cut = cut
        self._launch = _CudaRun if torch.device(device).type == "cuda" else _CpuRun
        self.max_batch_tokens = max_batch_tokens
        self._on_batch = on_batch
        self.busy_s = 0.0

    @torch.inference_mode()
    def logits(self, window: EncodedWindow, pairs: np.ndarray) -> np.ndarray:
        """float32 logits of some distinct pairs of the window.

        Raises:
            PairTooLargeError: one pair alone exhausts the device's memory.
        """
        out = np.empty(len(window.lengths), dtype=np.float32)
        waiting = deque(self._batches(window, pairs))
        late: _Run | None = None
        while waiting:
            batch_pairs = waiting.popleft()
            try:
                run = self._start(window, batch_pairs)
            except torch.OutOfMemoryError as error:
                self._halve(window, batch_pairs, error)
                rest = np.concatenate([batch_pairs, *waiting])
                waiting = deque(self._batches(window, rest))
                continue
            self._collect(window, late, out)
            late = run
        self._collect(window, late, out)
        wanted: np.ndarray = out[pairs]
        return wanted

    def _batches(self, window: EncodedWindow, pairs: np.ndarray) -> Iterator[np.ndarray]:
        for places in self._cut(window.lengths[pairs], self.max_batch_tokens):
            yield pairs[places]

    def _start(self, window: EncodedWindow, pairs: np.ndarray) -> _Run:
        batch = TokenBatch.of(window, pairs).to(self._device)
        return self._launch(self._forward, batch, pairs)

    def _collect(self, window: EncodedWindow, run: _Run | None, out: np.ndarray) -> None:
        if run is None:
            return
        out[run.pairs] = run.result()
        self.busy_s += run.busy_s
        n_tokens = int(window.lengths[run.pairs].sum())
        self._on_batch(BatchRun(len(run.pairs), n_tokens, self.max_batch_tokens, run.busy_s))

    def _halve(self, window: EncodedWindow, pairs: np.ndarray, error: Exception) -> None:
        n_tokens = int(window.lengths[pairs].sum())
        if len(pairs) == 1:
            row = int(np.flatnonzero(window.pair_of_row == pairs[0])[0])
            raise PairTooLargeError(row, n_tokens) from error
        self.max_batch_tokens = min(self.max_batch_tokens, n_tokens) // 2
        torch.cuda.empty_cache()


class _Run(Protocol):
    pairs: np.ndarray
    busy_s: float

    def result(self) -> np.ndarray: ...


class _CpuRun:
    def __init__(self, forward: Forward, batch: TokenBatch, pairs: np.ndarray) -> None:
        started = time.perf_counter()
        self._logits = forward.forward(batch)
        self.busy_s = time.perf_counter() - started
        self.pairs = pairs

    def result(self) -> np.ndarray:
        logits: np.ndarray = self._logits.numpy()
        return logits


class _CudaRun:
    """A forward under way; `result` waits for this batch alone, the next one already queued."""

    def __init__(self, forward: Forward, batch: TokenBatch, pairs: np.ndarray) -> None:
        event: Any = torch.cuda.Event
        self._started = event(enable_timing=True)
        self._ended = event(enable_timing=True)
        self._started.record()
        logits = forward.forward(batch)
        self._host = torch.empty(logits.shape, dtype=logits.dtype, pin_memory=True)
        self._host.copy_(logits, non_blocking=True)
        self._ended.record()
        self.pairs = pairs
        self.busy_s = 0.0

    def result(self) -> np.ndarray:
        self._ended.synchronize()
        self.busy_s = self._started.elapsed_time(self._ended) / 1000
        logits: np.ndarray = self._host.numpy()
        return logits
