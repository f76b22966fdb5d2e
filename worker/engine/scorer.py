"""Text in, exact fp32 logits out: the one seam between the engine and everything else.

    scorer = Scorer.load(folder)
    for scores in scorer.score(windows): ...

Windows go in as an iterable and their scores come out in the same order, so that the engine may
read and tokenize ahead of the device.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from worker.engine.agreement import Agreement, measure_agreement
from worker.engine.batches.batching import packed_batches, padded_batches
from worker.engine.batches.pairs import EncodedWindow
from worker.engine.device.faults import (
    DeviceFaultError,
    DeviceFullError,
    ForwardError,
    fault_of,
    first_line,
)
from worker.engine.device.memory import PAUSES_S, default_budget, release
from worker.engine.device.runner import PairTooLargeError, Runner
from worker.engine.encoding.encoder import Encoder, encoder_for
from worker.engine.families.loader import LoadedModel, PathName, load_model
from worker.engine.folder.model_folder import Activation, ModelFolder
from worker.engine.kernels.precision import Precision, Resolved, resolve_precision
from worker.engine.prefetch import ahead
from worker.engine.stats import BatchRun, OnBatch, ScorerStats, unheard
from worker.engine.values import PairWindow, WindowScores

__all__ = [
    "Activation",
    "Agreement",
    "BatchRun",
    "DeviceFaultError",
    "DeviceFullError",
    "ForwardError",
    "PairTooLargeError",
    "PairWindow",
    "Scorer",
    "ScorerInfo",
    "ScorerStats",
    "WindowScores",
]


_PROOF_LENGTH = 128


@dataclass(frozen=True)
class ScorerInfo:
    """What a scorer is made of, for manifests and `estimate`.

    Attributes:
        path: `packed`, `padded` or `causal`; `path_reason` says why it is not packed.
        precision: what `auto` came to, where it was asked for.
        deterministic: a pair gets the same bits whatever pairs it is scored with.
    """

    architecture: str
    path: PathName
    precision: Resolved
    device: str
    max_length: int
    activation: Activation
    path_reason: str
    deterministic: bool


class Scorer:
    """A cross-encoder on one device; make one with `Scorer.load`."""

    def __init__(
        self,
        runner: Runner,
        encoder: Encoder,
        info: ScorerInfo,
        *,
        load_exact: Callable[[], Runner],
    ) -> None:
        self._runner = runner
        self._encoder = encoder
        self._load_exact = load_exact
        self._totals = ScorerStats()
        self._exact: Runner | None = None  # in fp32, once a reduced precision has overflowed
        self._no_rescue: str | None = None
        self.info = info

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        device: str = "cpu",
        max_length: int | None = None,
        max_batch_tokens: int | None = None,
        precision: Precision = "auto",
        on_batch: OnBatch = unheard,
        may_run_code: bool = False,
        activation: Activation | None = None,
    ) -> Scorer:
        """Load safetensors weights from a local folder; never the network, nor code unless told.

        Args:
            on_batch: told of each batch, also of those in fp32.
            activation: in place of the folder's own.

        Raises:
            UnusableFolder: the folder is not a cross-encoder that this engine can load whole.
            ValueError: the precision cannot be had on that device or for that model.
        """
        source = ModelFolder(Path(folder), may_run_code=may_run_code)
        activation = activation or source.activation
        resolved = resolve_precision(precision, device)
        limit = min(max_length or source.length_limit, source.length_limit)
        encoder = encoder_for(source, max_length=limit)

        def runner_in(chosen: Resolved) -> tuple[LoadedModel, Runner]:
            model = load_model(source, device=device, precision=chosen)
            budget = max_batch_tokens or default_budget(
                model.forward,
                model=str(folder),
                precision=chosen,
                device=device,
                max_length=limit,
            )
            cut = packed_batches if model.path == "packed" else padded_batches
            runner = Runner(
                model.forward,
                device=device,
                cut=cut,
                max_batch_tokens=budget,
                on_batch=on_batch,
                # What is loaded in fp32 besides has room, or is done without.
                pauses_s=PAUSES_S if chosen == resolved else (),
            )
            return model, runner

        model, runner = runner_in(resolved)
        info = ScorerInfo(
            architecture=model.architecture,
            path=model.path,
            precision=resolved,
            device=device,
            max_length=limit,
            activation=activation,
            path_reason=model.path_reason,
            deterministic=model.is_batch_invariant,
        )
        return cls(runner, encoder, info, load_exact=lambda: runner_in("fp32")[1])

    @property
    def stats(self) -> ScorerStats:
        """A snapshot of the totals since loading."""
        return replace(self._totals, device_busy_s=self._runner.busy_s)

    @property
    def max_batch_tokens(self) -> int:
        """Tokens in a batch at most, where one pair does not have more."""
        return self._runner.max_batch_tokens

    def score(self, windows: Iterable[PairWindow]) -> Iterator[WindowScores]:
        """Yield the scores of each window, in order; reads and tokenizes one or two ahead.

        Raises:
            PairTooLargeError: one pair alone exhausts the device's memory.
            DeviceFullError: the device has no room for what should fit, and had none for a while.
            DeviceFaultError: the device has failed.
            ForwardError: the model's forward failed by itself.
        """
        mark = asked = time.perf_counter()
        with closing(ahead(map(self._encoder.encode, windows))) as encoded:
            for window in encoded:
                ready = time.perf_counter()
                scores = self._score_encoded(window)
                now = time.perf_counter()
                self._count(window, now - mark, ready - asked)
                mark = now
                yield scores
                asked = time.perf_counter()

    def agreement(self, window: PairWindow) -> Agreement:
        """How this precision ranks the window's pairs compared with fp32, loaded for the while.

        Raises:
            DeviceFullError: the device has no room for the model in fp32 besides.
        """
        encoded = self._encoder.encode(window)
        pairs = np.arange(len(encoded.lengths))
        reduced = self._score_encoded(encoded).logits
        exact = self._in_fp32(encoded, pairs, None)[encoded.pair_of_row]
        return measure_agreement(window.queries, reduced, exact)

    def prove(self) -> None:
        """Put a full batch through the device, to see whether it works.

        Raises:
            DeviceFullError, DeviceFaultError: as `score`.
        """
        try:
            self._runner.prove(min(_PROOF_LENGTH, self.info.max_length))
        except ForwardError:
            pass  # the model does not like the batch, which says nothing of the device

    def _score_encoded(self, window: EncodedWindow) -> WindowScores:
        logits = self._runner.logits(window, np.arange(len(window.lengths)))
        broken = np.flatnonzero(~np.isfinite(logits))
        if len(broken) and self.info.precision != "fp32" and self._no_rescue is None:
            try:
                if self._exact is None:
                    self._exact = self._loaded_exact()
                logits[broken] = self._in_fp32(window, broken, self._exact)
            except DeviceFullError as error:
                self._exact, self._no_rescue = None, str(error)
            if self._no_rescue is not None:
                release(self.info.device)
        row = window.pair_of_row
        return WindowScores(
            logits=logits[row],
            n_tokens=window.lengths[row].astype(np.int32),
            truncated=window.truncated[row],
            no_rescue=self._no_rescue,
        )

    def _in_fp32(
        self, window: EncodedWindow, pairs: np.ndarray, runner: Runner | None
    ) -> np.ndarray:
        """Logits of some pairs by the model in fp32, which is loaded where it is not given.

        Raises:
            DeviceFullError: there is no room for it.
        """
        try:
            return (runner or self._loaded_exact()).logits(window, pairs)
        except PairTooLargeError as error:
            raise DeviceFullError(f"fp32 does not fit besides: {first_line(error)}") from None

    def _loaded_exact(self) -> Runner:
        try:
            return self._load_exact()
        except Exception as error:
            if fault_of(error) != "memory":
                raise
            said = first_line(error)
        raise DeviceFullError(f"fp32 does not fit besides {self.info.precision}: {said}")

    def _count(self, window: EncodedWindow, seconds: float, starved_s: float) -> None:
        done = self._totals
        truncated = window.truncated[window.pair_of_row]
        self._totals = replace(
            done,
            n_pairs=done.n_pairs + len(window.pair_of_row),
            n_unique_pairs=done.n_unique_pairs + len(window.lengths),
            n_tokens=done.n_tokens + int(window.lengths.sum()),
            n_truncated=done.n_truncated + int(truncated.sum()),
            wall_s=done.wall_s + seconds,
            starved_s=done.starved_s + starved_s,
        )
