"""Run batches on the device: launch without waiting, fetch results one batch late."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import numpy as np
import torch

from worker.engine.batches.batch_cuts import CutBatches
from worker.engine.batches.batching import TokenBatch
from worker.engine.batches.pairs import EncodedWindow
from worker.engine.device.budget import BatchBudget
from worker.engine.device.faults import (
    DeviceFaultError,
    DeviceFullError,
    ForwardError,
    fault_of,
    first_line,
)
from worker.engine.device.memory import PAUSES_S, asks_too_much, is_ours_alone, release
from worker.engine.kernels.layers import Forward
from worker.engine.stats import BatchRun, OnBatch, ignore_batch


class PairTooLargeError(RuntimeError):
    """A single pair does not fit into the device's memory.

    Attributes:
        row: the first row of the window that holds the pair.
        n_tokens: the length of the pair.
    """

    def __init__(self, row: int, n_tokens: int) -> None:
        super().__init__(
            f"pair {row} of the window ({n_tokens} tokens) does not fit into the device's memory "
            f"by itself; lower max_length"
        )
        self.row = row
        self.n_tokens = n_tokens


class Runner:
    """A forward with its device, its batch budget and its answer to a full device.

    Attributes:
        busy_s: seconds the device has spent in forwards.
    """

    def __init__(
        self,
        forward: Forward,
        *,
        device: str,
        cut: CutBatches,
        max_batch_tokens: int,
        on_batch: OnBatch = ignore_batch,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        """Set up a runner with a full budget.

        Args:
            forward: the model on its device.
            device: a device of torch, such as "cpu" or "cuda:1".
            cut: cuts pairs of a window into batches.
            max_batch_tokens: the first budget.
            on_batch: called with each batch after its result has arrived.
            pauses_s: pauses before the attempts at a batch that should fit, then it is given up.
        """
        self._forward = forward
        self._device = device
        self._cut = cut
        self._launch = _CudaRun if _is_cuda(device) else _CpuRun
        self._budget = BatchBudget(max_batch_tokens)
        self._on_batch = on_batch
        self._pauses_s = pauses_s
        self._longest_fit = 0
        self._shortest_misfit: float = math.inf
        self.busy_s = 0.0

    @property
    def max_batch_tokens(self) -> int:
        """The present budget of a batch in tokens."""
        return self._budget.max_tokens

    @torch.inference_mode()
    def logits(self, window: EncodedWindow, pairs: np.ndarray) -> np.ndarray:
        """Return the float32 logits of some distinct pairs of the window, in their order.

        Raises:
            PairTooLargeError: one pair alone exhausts the device's memory, with nothing else in it.
            DeviceFullError: the device stayed full although the pair should fit.
            DeviceFaultError: the device has failed.
            ForwardError: the model's forward failed by itself.
        """
        out = np.empty(len(window.lengths), dtype=np.float32)
        waiting = deque(self._batches(window, pairs))
        late: _Run | None = None
        n_pauses = 0
        while waiting:
            batch_pairs = waiting.popleft()
            started = self._try(window, batch_pairs)
            self._collect(window, late, out)
            late = None
            if isinstance(started, str):  # nothing holds the activations now
                release(self._device)
                if len(batch_pairs) > 1:
                    self._budget.halve(window.n_computed(batch_pairs))
                else:
                    self._wait(window, batch_pairs, n_pauses, started)
                    n_pauses += 1
                rest = np.concatenate([batch_pairs, *waiting])
                waiting = deque(self._batches(window, rest))
                continue
            late = started
            n_pauses = 0
            longest = int(window.lengths[batch_pairs].max())
            self._longest_fit = max(self._longest_fit, longest)
            if self._budget.count_fitting() and waiting:
                waiting = deque(self._batches(window, np.concatenate(list(waiting))))
        self._collect(window, late, out)
        logits: np.ndarray = out[pairs]
        return logits

    @torch.inference_mode()
    def prove(self, length: int) -> None:
        """Run a full batch of pairs of a length on the device.

        Raises:
            DeviceFullError, DeviceFaultError, ForwardError: as `logits`.
        """
        n_pairs = max(1, self.max_batch_tokens // length)
        window = EncodedWindow.of_ones(n_pairs, length)
        self.logits(window, np.arange(n_pairs))

    def _batches(self, window: EncodedWindow, pairs: np.ndarray) -> Iterator[np.ndarray]:
        return self._cut(window, pairs, self.max_batch_tokens)

    def _try(self, window: EncodedWindow, pairs: np.ndarray) -> _Run | str:
        """Return a started batch, or the error message if the device has no room for it."""
        try:
            with _faults(), self._current_device():
                batch = TokenBatch.of(window, pairs).to(self._device)
                return self._launch(self._forward, batch, pairs)
        except DeviceFullError as error:
            return str(error)

    def _collect(self, window: EncodedWindow, run: _Run | None, out: np.ndarray) -> None:
        if run is None:
            return
        with _faults(), self._current_device():
            out[run.pairs] = run.result()
        self.busy_s += run.busy_s
        n_tokens = window.n_computed(run.pairs)
        self._on_batch(BatchRun(len(run.pairs), n_tokens, self.max_batch_tokens, run.busy_s))

    def _wait(self, window: EncodedWindow, pairs: np.ndarray, n_pauses: int, message: str) -> None:
        """Pause before the next attempt at a single pair that did not fit.

        Raises:
            PairTooLargeError: it does not fit into the whole device.
            DeviceFullError: it should fit, and all pauses are used up.
        """
        row = int(np.flatnonzero(window.pair_of_row == pairs[0])[0])
        n_tokens = int(window.lengths[pairs[0]])
        if n_tokens >= self._shortest_misfit or asks_too_much(message, self._device):
            raise PairTooLargeError(row, n_tokens)
        if n_pauses < len(self._pauses_s):
            time.sleep(self._pauses_s[n_pauses])
            return
        if n_tokens > self._longest_fit and self._takes_a_little() and is_ours_alone(self._device):
            self._shortest_misfit = n_tokens  # no pauses for others like it
            raise PairTooLargeError(row, n_tokens)
        raise DeviceFullError(f"no room for {n_tokens} tokens, which should fit: {message}")

    def _takes_a_little(self) -> bool:
        started = self._try(EncodedWindow.of_ones(1, 2), np.arange(1))
        if not isinstance(started, str):
            with _faults(), self._current_device():
                started.result()
        return not isinstance(started, str)

    def _current_device(self) -> AbstractContextManager[Any]:
        """Make the device current: events, streams and pinned copies belong to that device."""
        return torch.cuda.device(self._device) if _is_cuda(self._device) else nullcontext()


def _is_cuda(device: str) -> bool:
    return torch.device(device).type == "cuda"


@contextmanager
def _faults() -> Iterator[None]:
    """Convert an error of a forward into DeviceFullError, DeviceFaultError or ForwardError."""
    try:
        yield
    except Exception as error:
        fault, message = fault_of(error), first_line(error)
        if fault == "memory":
            # Without its cause, whose frames hold the activations.
            raise DeviceFullError(message) from None
        if fault == "device":
            raise DeviceFaultError(message) from error
        raise ForwardError(f"{type(error).__name__}: {message}") from error


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
    """A started forward; `result` waits for this batch alone, the next one is queued already."""

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
