"""The model in fp32 next to one of a reduced precision: for pairs that overflow, and to compare."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from worker.engine.batches.pairs import EncodedWindow
from worker.engine.device.faults import DeviceFullError, fault_of, first_line
from worker.engine.device.memory import release
from worker.engine.device.runner import PairTooLargeError, Runner
from worker.engine.kernels.precision import Resolved


class Rescue:
    """The model in fp32, which is loaded when a pair needs it.

    Attributes:
        load: loads it.
        refusal: why the device has no room for it; None as long as it had.
    """

    def __init__(self, load: Callable[[], Runner], precision: Resolved, device: str) -> None:
        self.load = load
        self.refusal: str | None = None
        self._precision, self._device = precision, device
        self._kept: Runner | None = None  # once the reduced precision has overflowed

    def fill(self, window: EncodedWindow, logits: np.ndarray) -> None:
        """Replace the logits of a window that are not finite, if the device has room for fp32.

        Args:
            window: the encoded pairs.
            logits: float32 (pairs,), of the reduced precision.
        """
        broken = np.flatnonzero(~np.isfinite(logits))
        if not len(broken) or self._precision == "fp32" or self.refusal is not None:
            return
        try:
            if self._kept is None:
                self._kept = self._loaded()
            logits[broken] = self.logits(window, broken, self._kept)
        except DeviceFullError as error:
            self._kept, self.refusal = None, str(error)
        if self.refusal is not None:
            release(self._device)  # here the error no longer holds the model

    def logits(
        self, window: EncodedWindow, pairs: np.ndarray, runner: Runner | None = None
    ) -> np.ndarray:
        """Return the logits of some pairs in fp32.

        Args:
            window: the encoded pairs.
            pairs: int64, indices into the window.
            runner: the model in fp32; None loads it for this call.

        Raises:
            DeviceFullError: the device has no room for it.
        """
        try:
            return (runner or self._loaded()).logits(window, pairs)
        except PairTooLargeError as error:
            raise DeviceFullError(f"fp32 does not fit as well: {first_line(error)}") from None

    def _loaded(self) -> Runner:
        try:
            return self.load()
        except Exception as error:
            if fault_of(error) != "memory":
                raise
            message = first_line(error)
        raise DeviceFullError(f"fp32 does not fit next to {self._precision}: {message}")
