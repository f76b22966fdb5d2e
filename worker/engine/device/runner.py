"""Run batches on the device: launch without waiting, fetch results one batch late.

The batch that is late may be the last of a window when the next window begins, so that the device
has work between two windows.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from worker.engine.batches.batch_cuts import CutBatches
from worker.engine.batches.batching import TokenBatch
from worker.engine.batches.pairs import EncodedWindow
from worker.engine.device.budget import BatchBudget
from worker.engine.device.cudnn import without_cudnn
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


@dataclass
class Launched:
    """Some pairs of a window on their way through the device.

    Attributes:
        window: the encoded pairs.
        pairs: int64, indices into the window.
        waiting: the pairs of each batch that is not launched.
        out: float32, the logits that have arrived, by pair of the window.
    """

    window: EncodedWindow
    pairs: np.ndarray
    waiting: deque[np.ndarray]
    out: np.ndarray


class Runner:
    """A forward with its device, its batch budget and its answer to a full device.

    Attributes:
        busy_s: seconds the device has spent in forwards.
        runs_later: whether a launched batch runs while the caller goes on.
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
        self.runs_later = _is_cuda(device)
        self._launch = _CudaRun if self.runs_later else _CpuRun
        self._budget = BatchBudget(max_batch_tokens)
        self._on_batch = on_batch
        self._pauses_s = pauses_s
        self._longest_fit = 0
        self._shortest_misfit: float = math.inf
        self._late: tuple[Launched, _Run] | None = None
        self.busy_s = 0.0
        self.n_computed = 0

    @property
    def max_batch_tokens(self) -> int:
        """The present budget of a batch in tokens."""
        return self._budget.max_tokens

    def logits(self, window: EncodedWindow, pairs: np.ndarray) -> np.ndarray:
        """Return the float32 logits of some distinct pairs of the window, in their order.

        Raises:
            PairTooLargeError: one pair alone exhausts the device's memory, with nothing else in it.
            DeviceFullError: the device stayed full although the pair should fit.
            DeviceFaultError: the device has failed.
            ForwardError: the model's forward failed by itself.
        """
        launched = self.start(window, pairs)
        self.launch(launched)
        return self.collect(launched)

    def start(self, window: EncodedWindow, pairs: np.ndarray) -> Launched:
        """Launch the first batch of some pairs, then collect what is late of the pairs before.

        Where it raises, the pairs before can still be collected.

        Raises:
            PairTooLargeError, DeviceFullError, DeviceFaultError, ForwardError: as `logits`.
        """
        out = np.empty(len(window.lengths), dtype=np.float32)
        launched = Launched(window, pairs, deque(self._batches(window, pairs)), out)
        if launched.waiting:
            self._launch_next(launched)
        return launched

    def launch(self, launched: Launched) -> None:
        """Launch the other batches; each is collected when the next one is launched.

        Raises:
            PairTooLargeError, DeviceFullError, DeviceFaultError, ForwardError: as `logits`.
        """
        while launched.waiting:
            self._launch_next(launched)

    def collect(self, launched: Launched) -> np.ndarray:
        """Wait for the last batch and return the logits, in the order of the pairs.

        Raises:
            DeviceFaultError, ForwardError: as `logits`.
        """
        if self._late is not None and self._late[0] is launched:
            self._collect_late()
        logits: np.ndarray = launched.out[launched.pairs]
        return logits

    def close(self) -> None:
        """Forget a late batch that nobody collects; the runner can be used again."""
        self._late = None

    @torch.inference_mode()
    @without_cudnn()
    def _launch_next(self, launched: Launched) -> None:
        """Launch the next batch, in smaller ones where the device is full."""
        window, n_pauses = launched.window, 0
        while True:
            pairs = launched.waiting.popleft()
            started = self._try(window, pairs)
            self._collect_late()
            if not isinstance(started, str):
                break
            release(self._device)  # nothing holds the activations now
            if len(pairs) > 1:
                self._budget.halve(window.n_computed(pairs))
            else:
                self._wait(window, pairs, n_pauses, started)
                n_pauses += 1
            self._cut_again(launched, pairs)
        self._late = launched, started
        self._longest_fit = max(self._longest_fit, int(window.lengths[pairs].max()))
        if self._budget.count_fitting():
            self._cut_again(launched)

    def _cut_again(self, launched: Launched, *more: np.ndarray) -> None:
        """Cut what is not launched into batches of the present budget."""
        rest = [*more, *launched.waiting]
        if rest:
            launched.waiting = deque(self._batches(launched.window, np.concatenate(rest)))

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

    def _collect_late(self) -> None:
        if self._late is None:
            return
        (launched, run), self._late = self._late, None
        with _faults(), self._current_device():
            launched.out[run.pairs] = run.result()
        self.busy_s += run.busy_s
        n_tokens = launched.window.n_computed(run.pairs)
        self.n_computed += n_tokens
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
