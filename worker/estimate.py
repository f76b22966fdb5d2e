"""Measure a sample of a job as the engine sees it: tokens, path and speed. It writes nothing.

Run as `python -m worker.estimate` with a MeasureRequest and its sample on stdin. It prints a
Measurement, or one line with the error, and exits with the error's code.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from rankmill.contract.estimate import (
    Calibration,
    FasterPrecision,
    Measurement,
    MeasureRequest,
)
from rankmill.contract.results import Agreement
from rankmill.errors import RankmillError
from rankmill.models.permission import is_code_allowed
from rankmill.models.recipes import recipe_for
from rankmill.models.scoring_settings import check_passage_lengths
from rankmill.settings import settings
from rankmill.tables.titles import scored_documents, title_lengths
from worker.arrow_text import prompts_of
from worker.device_errors import device_errors
from worker.engine.values import PairWindow
from worker.sample_tokens import SampleTokens, of_fitting_pairs
from worker.shard.rejects import refusals

# `null` needs no torch, which takes seconds to load.
if TYPE_CHECKING:
    from worker.engine.batches.pairs import EncodedWindow
    from worker.engine.encoding.encoder import Encoder
    from worker.engine.kernels.precision import Precision
    from worker.engine.scorer import Scorer

# Pairs whose order in int8 is compared with that in fp32, as at the start of a job.
_COMPARED = 120

# A window that takes much less is not like one of a job.
_WINDOW_S = 1.0

# Steps of the golden ratio fill an interval evenly however many there are.
_GOLDEN = (5**0.5 - 1) / 2


def main() -> None:
    """Answer one request."""
    request, sample = MeasureRequest.read(sys.stdin.buffer.read())
    try:
        with device_errors():
            measured = measure(request, sample)
        print(measured.model_dump_json())
    except RankmillError as error:
        print(error)
        sys.exit(error.exit_code)


def measure(request: MeasureRequest, sample: pa.Table) -> Measurement:
    """Encode the sample as a shard's rows are, and score some of it if the request asks for it.

    Raises:
        ModelUnavailable: the model cannot be loaded.
    """
    needs_prompt = request.options.needs_prompt
    refused = refusals(sample, request.columns, needs_prompt=needs_prompt)
    if request.model_folder is None:
        return Measurement(
            refused=refused,
            n_tokens=(),
            truncated=(),
            path="none",
            path_reason="nothing is scored",
            precision="none",
            max_length=0,
            device="none",
            calibration=None,
        )
    good = sample.take(np.delete(np.arange(sample.num_rows), list(refused)))
    windows, size = [], settings().window_pairs
    for start in range(0, good.num_rows, size):
        rows = good.slice(start, size)
        documents = scored_documents(rows, request.columns).to_pylist()
        queries = rows[request.columns.query].to_pylist()
        prompts = prompts_of(rows, request.columns)
        titles = title_lengths(rows, request.columns)
        windows.append(PairWindow(queries, documents, prompts, titles))
    return _measured(request, Path(request.model_folder), refused, windows)


def _measured(
    request: MeasureRequest, folder: Path, refused: dict[int, str], windows: list[PairWindow]
) -> Measurement:
    import torch

    from worker.engine.encoding.encoder import encoder_for, pair_length
    from worker.engine.encoding.shared_prefix import SharingEncoder
    from worker.engine.families.loader import check_scoring, path_of
    from worker.engine.folder.model_folder import ModelFolder
    from worker.engine.kernels.precision import resolve_precision
    from worker.engine.passages.limits import TextLimits
    from worker.engine.passages.passage_scorer import NO_ROOM
    from worker.engine.passages.planning import PassagePlanner
    from worker.engine.scorer import Scorer
    from worker.models import chosen_device, limits_of, loading, use_cores

    options, device = request.options, chosen_device().name
    may_run_code = is_code_allowed(options.model_id)
    recipe = recipe_for(folder, options)
    source = ModelFolder(folder, may_run_code=may_run_code, recipe=recipe)
    use_cores()
    with loading(options.model_id):
        check_scoring(source)
        path, reason = path_of(source)
        precision = resolve_precision(options.precision, device)
        limit = pair_length(source, options.max_length)
        encoder: Encoder = encoder_for(source, max_length=limit)
        if path == "prefix":
            encoder = SharingEncoder(encoder, unread=None)
        check_passage_lengths(options, limit)
        limits = limits_of(options)
        if limits == TextLimits():
            sampled = partial(SampleTokens.of_pairs, encoder=encoder)
        else:
            planner = PassagePlanner(encoder, source.tokenizer, limits, limit)
            sampled = partial(SampleTokens.of_passages, planner=planner)
        found, unfit = of_fitting_pairs(windows, sampled)
    windows = found.windows
    n_rows = len(refused) + len(unfit) + len(found.n_tokens)
    rows = np.delete(np.arange(n_rows), list(refused))
    refused = refused | {int(rows[at]): reason for at, reason in unfit.items()}
    rows = np.delete(np.arange(n_rows), list(refused))
    refused = refused | {int(rows[at]): NO_ROOM for at in found.without_room}
    calibration = faster = None
    if request.calibrate_s and any(len(window.queries) for window in windows):
        order = LengthOrder.of(windows, found.encoded)

        def scorer_in(precision: Precision) -> Scorer:
            with loading(options.model_id):
                return Scorer.load(
                    folder,
                    device=device,
                    max_length=options.max_length,
                    max_batch_tokens=options.max_batch_tokens,
                    precision=precision,
                    may_run_code=may_run_code,
                    activation=None if options.activation == "auto" else options.activation,
                    recipe=recipe,
                )

        calibration = calibrate(scorer_in(options.precision), order, request.calibrate_s)
        is_ours = path in ("packed", "prefix")
        if is_ours and (options.precision, precision, device) == ("auto", "fp32", "cpu"):
            scorer = scorer_in("int8")
            other = calibrate(scorer, order, request.calibrate_s / 2)
            first = windows[0].between(0, _COMPARED)
            faster = FasterPrecision(
                times=other.computed_per_s / calibration.computed_per_s,
                agreement=Agreement(precision="int8", **asdict(scorer.agreement(first))),
            )
    return Measurement(
        refused=refused,
        n_tokens=found.scored(found.n_tokens),
        truncated=found.scored(found.truncated),
        n_passages=found.scored(found.n_passages) if limits.has_passages else [],
        n_shared=found.scored(found.n_shared) if path == "prefix" else [],
        path=path,
        path_reason=reason,
        precision=precision,
        max_length=limit,
        device=torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        calibration=calibration,
        faster=faster,
    )


@dataclass(frozen=True)
class LengthOrder:
    """The distinct pairs of a sample: shortest first, or query by query where they share prefixes.

    Attributes:
        ends: int64 (n,), the tokens of all pairs up to each one.
        pairs: the texts in the same order.
    """

    ends: np.ndarray
    pairs: PairWindow

    @classmethod
    def of(cls, windows: list[PairWindow], encoded: list[EncodedWindow]) -> LengthOrder:
        """Order the distinct pairs of some windows by their encodings."""
        texts: list[tuple[int, str, str, str | None]] = []
        for window, part in zip(windows, encoded, strict=True):
            _, rows = np.unique(part.pair_of_row, return_index=True)
            for length, row in zip(part.lengths.tolist(), rows.tolist(), strict=True):
                prompt = None if window.prompts is None else window.prompts[row]
                texts.append((length, window.queries[row], window.documents[row], prompt))
        if all(part.prefixes is None for part in encoded):
            texts.sort(key=lambda pair: pair[0])
        lengths, queries, documents, prompts = zip(*texts, strict=True)
        return cls(np.cumsum(lengths), PairWindow(list(queries), list(documents), list(prompts)))

    @property
    def n_tokens(self) -> int:
        """The tokens of all pairs."""
        return int(self.ends[-1])

    def window(self, number: int, n_tokens: int, max_batch_tokens: int) -> PairWindow:
        """Return pairs of about `n_tokens` whose batches are like those of a job.

        They are runs of pairs that follow each other, a batch each, spread evenly over all.

        Args:
            number: another number gives other runs, since a device is faster with known shapes.
            n_tokens: the tokens of the window.
            max_batch_tokens: the tokens of a batch.
        """
        n_runs = max(1, n_tokens // max_batch_tokens)
        begins = (number * _GOLDEN % 1 + np.arange(n_runs)) / n_runs * self.n_tokens
        first = np.searchsorted(self.ends, begins, "right")
        stop = np.searchsorted(self.ends, begins + n_tokens / n_runs, "right")
        runs = zip(first, np.maximum(stop, first + 1), strict=True)
        chosen = np.unique(np.concatenate([np.arange(*run) for run in runs]))
        prompts = self.pairs.prompts
        return PairWindow(
            [self.pairs.queries[at] for at in chosen],
            [self.pairs.documents[at] for at in chosen],
            None if prompts is None else [prompts[at] for at in chosen],
        )


def calibrate(scorer: Scorer, order: LengthOrder, budget_s: float) -> Calibration:
    """Measure how fast the device scores, with tokenizing ahead as in a job.

    Windows double until one takes about a second; then windows of that size are timed.

    Args:
        scorer: with the model and the options of the job.
        order: the pairs of the sample.
        budget_s: about the seconds to spend; a slow device scores at least four pairs.
    """
    until = time.perf_counter() + budget_s
    numbers, n_tokens = count(), 1

    def window() -> PairWindow:
        return order.window(next(numbers), n_tokens, scorer.max_batch_tokens)

    while _timed(scorer, [window(), window()]).seconds < _WINDOW_S and n_tokens < order.n_tokens:
        n_tokens = min(2 * n_tokens, order.n_tokens)

    def windows() -> Iterator[PairWindow]:
        yield window()
        yield window()
        while time.perf_counter() < until:
            yield window()

    return _timed(scorer, windows())


def _timed(scorer: Scorer, windows: Iterable[PairWindow]) -> Calibration:
    """Time all windows but the first, for whose tokens the device has to wait."""
    results = scorer.score(windows)
    next(results)
    before, started = scorer.stats, time.perf_counter()
    for _ in results:
        pass
    seconds, after = time.perf_counter() - started, scorer.stats
    return Calibration(
        n_pairs=after.n_unique_pairs - before.n_unique_pairs,
        n_tokens=after.n_tokens - before.n_tokens,
        seconds=seconds,
        n_computed=after.n_computed - before.n_computed,
        max_batch_tokens=scorer.max_batch_tokens,
    )


if __name__ == "__main__":
    main()
