"""Score pairs of texts with a model: the interface of the engine.

    scorer = Scorer.load(folder)
    for scores in scorer.score(windows): ...

Windows go in as an iterable and their scores come out in the same order. The engine reads and
tokenizes ahead of the device.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rankmill.models.recipe import Recipe
from worker.engine.agreement import Agreement, measure_agreement
from worker.engine.batches.batch_cuts import (
    CutBatches,
    packed_batches,
    padded_batches,
    prefix_batches,
)
from worker.engine.batches.pairs import EncodedWindow
from worker.engine.device.faults import (
    DeviceFaultError,
    DeviceFullError,
    ForwardError,
)
from worker.engine.device.memory import PAUSES_S, default_budget, keep_freed_memory, release
from worker.engine.device.runner import Launched, PairTooLargeError, Runner
from worker.engine.encoding.encoder import Encoder, encoder_for, pair_length
from worker.engine.encoding.shared_prefix import SharingEncoder
from worker.engine.families.loader import PathName, check_scoring
from worker.engine.folder.model_folder import Activation, ModelFolder
from worker.engine.kernels.layers import Forward
from worker.engine.kernels.precision import Precision, Resolved, resolve_precision
from worker.engine.prefetch import MadeAhead
from worker.engine.rescue import Rescue
from worker.engine.resident import ResidentModel
from worker.engine.stats import BatchRun, OnBatch, ScorerStats, ignore_batch
from worker.engine.values import PairWindow, WindowScores

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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

# Windows that are encoded at the same time for a device that runs batches meanwhile.
_ENCODERS = 2

_CUTS: dict[PathName, CutBatches] = {
    "packed": packed_batches,
    "prefix": prefix_batches,
    "padded": padded_batches,
    "causal": padded_batches,
}


@dataclass(frozen=True)
class ScorerInfo:
    """Facts about a loaded scorer, for manifests and `estimate`.

    Attributes:
        architecture: the class of transformers that the model was loaded as.
        path: `packed`, `prefix`, `padded` or `causal`.
        precision: the precision in use; never `auto`.
        device: a device of torch.
        max_length: tokens that a pair is truncated to.
        activation: the function that turns logits into scores, outside the engine.
        path_reason: the reason why the path is padded or causal; empty if it is neither.
        deterministic: a pair gets the same bits with any other pairs.
        kernels: the compiled kernels in use, by their digest, or `torch`.
        recipe: the recipe's name for people; None where the folder alone says how pairs score.
        recipe_sha256: its digest.
        prompt: its instruction, for pairs without one of their own.
    """

    architecture: str
    path: PathName
    precision: Resolved
    device: str
    max_length: int
    activation: Activation
    path_reason: str
    deterministic: bool
    kernels: str = "torch"
    recipe: str | None = None
    recipe_sha256: str | None = None
    prompt: str | None = None


class Scorer:
    """A cross-encoder on one device; make one with `Scorer.load`."""

    def __init__(
        self,
        model: ResidentModel,
        *,
        max_length: int | None,
        max_batch_tokens: int | None,
        activation: Activation | None,
        on_batch: OnBatch,
        recipe: Recipe | None = None,
    ) -> None:
        source = model.source if recipe is None else model.source.with_recipe(recipe)
        check_scoring(source)
        activation = activation or source.activation
        limit = pair_length(source, max_length)
        self._model = model
        self._divide_by = np.float32(source.recipe.divide_by)
        self._max_batch_tokens = max_batch_tokens
        self._on_batch = on_batch
        # Before the weights are loaded, since it refuses some folders and lengths.
        self._encoder: Encoder = encoder_for(source, max_length=limit)
        loaded = model.loaded
        if loaded.path == "prefix":
            self._encoder = SharingEncoder(self._encoder, unread=loaded.unread)
        self.info = ScorerInfo(
            architecture=loaded.architecture,
            path=loaded.path,
            precision=model.precision,
            device=model.device,
            max_length=limit,
            activation=activation,
            path_reason=loaded.path_reason,
            deterministic=loaded.is_batch_invariant,
            kernels=loaded.kernels,
            recipe=source.recipe.title,
            recipe_sha256=source.recipe.sha256,
            prompt=source.recipe.prompt,
        )
        self._runner = self._runner_of(loaded.forward, model.precision, PAUSES_S)
        release(model.device)
        if not self._runner.runs_later:
            keep_freed_memory()
        self._totals = ScorerStats()
        # A second model does not wait for memory, since it is optional.
        self._rescue = Rescue(
            lambda: self._runner_of(model.exact(), "fp32", ()), model.precision, model.device
        )

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        device: str = "cpu",
        max_length: int | None = None,
        max_batch_tokens: int | None = None,
        precision: Precision = "auto",
        on_batch: OnBatch = ignore_batch,
        may_run_code: bool = False,
        activation: Activation | None = None,
        recipe: Recipe | None = None,
    ) -> Scorer:
        """Load a model from a local folder of safetensors weights; never use the network.

        Args:
            folder: a folder of transformers or Sentence Transformers.
            device: a device of torch, such as "cpu" or "cuda:1".
            max_length: tokens that a pair is truncated to; the model's limit by default.
            max_batch_tokens: the budget of a batch; measured on CUDA by default.
            precision: `auto` is the fastest of the device with 16 bits or more.
            on_batch: called with each batch, also with those computed again in fp32.
            may_run_code: whether Python code of the folder may run.
            activation: overrides the activation of recipe and folder.
            recipe: how pairs are scored, where the folder does not say it.

        Raises:
            UnusableFolder: the folder is not a cross-encoder that the engine can load whole.
            ValueError: the device or the model does not support the precision.
        """
        source = ModelFolder(Path(folder), may_run_code=may_run_code, recipe=recipe)
        resolved = resolve_precision(precision, device)
        return cls(
            ResidentModel(source, device=device, precision=resolved),
            max_length=max_length,
            max_batch_tokens=max_batch_tokens,
            activation=activation,
            on_batch=on_batch,
        )

    def with_settings(
        self,
        *,
        max_length: int | None = None,
        max_batch_tokens: int | None = None,
        activation: Activation | None = None,
        recipe: Recipe | None = None,
    ) -> Scorer:
        """Return a scorer with other settings over the same weights and tokenizer.

        It has its own totals and its own budget of a batch. The arguments and errors are those of
        `load`. The recipe must have the same answer tokens.
        """
        return Scorer(
            self._model,
            max_length=max_length,
            max_batch_tokens=max_batch_tokens,
            activation=activation,
            on_batch=self._on_batch,
            recipe=recipe,
        )

    @property
    def stats(self) -> ScorerStats:
        """The totals since loading, as a snapshot."""
        ran = self._runner
        return replace(self._totals, device_busy_s=ran.busy_s, n_computed=ran.n_computed)

    @property
    def encoder(self) -> Encoder:
        """Return what encodes its pairs, truncated to `info.max_length`."""
        return self._encoder

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the model's tokenizer."""
        return self._model.source.tokenizer

    @property
    def max_batch_tokens(self) -> int:
        """The present budget of a batch in tokens; a longer pair makes a batch by itself."""
        return self._runner.max_batch_tokens

    def score(self, windows: Iterable[PairWindow]) -> Iterator[WindowScores]:
        """Yield the scores of each window in order; windows are tokenized ahead.

        Raises:
            PairTooLargeError: one pair alone exhausts the device's memory.
            DeviceFullError: the device stayed full although the pair should fit.
            DeviceFaultError: the device has failed.
            ForwardError: the model's forward failed by itself.
        """
        n_threads = _ENCODERS if self._runner.runs_later and self._encoder.is_concurrent else 1
        return self._scored(MadeAhead(self._encoder.encode, windows, n_threads))

    def score_encoded(
        self, windows: Iterable[EncodedWindow]
    ) -> Generator[WindowScores, None, None]:
        """Yield the scores of each encoded window in order; one or two are encoded ahead.

        Raises:
            PairTooLargeError, DeviceFullError, DeviceFaultError, ForwardError: as `score`.
        """
        return self._scored(MadeAhead(lambda window: window, windows))

    def _scored(self, encoded: MadeAhead[EncodedWindow]) -> Generator[WindowScores, None, None]:
        """Score windows so that the device has the next one's first batch before it ends one.

        An error of that batch is raised after the scores of the window before.
        """
        launched: Launched | None = None
        failure: Exception | None = None
        mark = time.perf_counter()
        with closing(encoded), closing(self._runner):
            while failure is None:
                starved_s = 0.0
                if launched is None:
                    asked = time.perf_counter()
                    window = next(encoded, None)
                    starved_s = time.perf_counter() - asked
                    if window is None:
                        return
                    launched = self._start(window)
                self._runner.launch(launched)
                following: Launched | None = None
                if self._runner.runs_later and encoded.is_ready():
                    try:
                        window = next(encoded, None)
                        following = None if window is None else self._start(window)
                    except Exception as error:
                        failure = error
                scores = self._collect(launched)
                now = time.perf_counter()
                self._count(launched.window, now - mark, starved_s)
                mark, launched = now, following
                yield scores
            raise failure

    def agreement(self, window: PairWindow, logits: np.ndarray | None = None) -> Agreement:
        """Compare this precision's ranking of the window's pairs with that of fp32.

        On a CPU, one layer at a time is cast to fp32; else the model is loaded in fp32.

        Args:
            window: the pairs.
            logits: float32 (pairs,), their logits in this precision; None to score them.

        Raises:
            DeviceFullError: the device has no room for a second model in fp32.
        """
        return self.compare(window.queries, self._encoder.encode(window), logits)

    def compare(
        self, queries: Sequence[str], encoded: EncodedWindow, logits: np.ndarray | None = None
    ) -> Agreement:
        """Return the `agreement` of an encoded window; `queries` has the query of each row."""
        pairs = np.arange(len(encoded.lengths))
        reduced = logits
        if reduced is None:
            launched = self._start(encoded)
            self._runner.launch(launched)
            reduced = self._collect(launched).logits
        exact = self._rescue.logits(encoded, pairs)[encoded.pair_of_row] / self._divide_by
        release(self.info.device)
        return measure_agreement(queries, reduced, exact)

    def have_weights_changed(self) -> bool:
        """Return whether the files of weights in use were written to since they were loaded."""
        mapped = self._model.loaded.mapped
        return mapped is not None and mapped.have_changed()

    def prove(self) -> None:
        """Run a full batch, to find out whether the device works.

        Raises:
            DeviceFullError, DeviceFaultError: as `score`.
        """
        try:
            self._runner.prove(min(_PROOF_LENGTH, self.info.max_length))
        except ForwardError:
            pass  # the model refuses the batch: the device works

    def _start(self, window: EncodedWindow) -> Launched:
        return self._runner.start(window, np.arange(len(window.lengths)))

    def _collect(self, launched: Launched) -> WindowScores:
        """Return the scores of a window whose batches are launched."""
        window, logits = launched.window, self._runner.collect(launched)
        self._rescue.fill(window, logits)
        row = window.pair_of_row
        return WindowScores(
            logits=logits[row] / self._divide_by,
            n_tokens=window.lengths[row].astype(np.int32),
            truncated=window.truncated[row],
            no_rescue=self._rescue.refusal,
        )

    def _runner_of(
        self, forward: Forward, precision: Resolved, pauses_s: Sequence[float]
    ) -> Runner:
        device = self.info.device
        budget = self._max_batch_tokens or default_budget(
            forward,
            model=str(self._model.source.path),
            precision=precision,
            device=device,
            max_length=self.info.max_length,
        )
        return Runner(
            forward,
            device=device,
            cut=_CUTS[self.info.path],
            max_batch_tokens=budget,
            on_batch=self._on_batch,
            pauses_s=pauses_s,
        )

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
