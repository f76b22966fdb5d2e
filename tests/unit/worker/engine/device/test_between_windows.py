"""A device that runs batches later has work between two windows, and errors keep their windows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.models.failing import Failing, out_of_memory
from worker.engine.batches.batching import TokenBatch
from worker.engine.scorer import (
    DeviceFaultError,
    ForwardError,
    PairTooLargeError,
    PairWindow,
    Scorer,
)

SIZES = (3, 4, 5, 6)


class Later:
    """A device that runs a batch when its result is asked for.

    It takes a batch only when the window behind it is encoded, so that no test depends on timing.

    Attributes:
        log: what was launched and collected, by the number of pairs.
    """

    def __init__(self, scorer: Scorer, windows: list[PairWindow]) -> None:
        self.log: list[str] = []
        self._windows = windows
        self._n_requested = 0
        self._requested = threading.Condition()
        scorer._runner.runs_later = True
        scorer._runner._launch = self._launch
        vars(scorer.encoder)["is_concurrent"] = False  # windows are encoded in turn

    def windows(self) -> Iterator[PairWindow]:
        for window in [*self._windows, None]:
            with self._requested:
                self._n_requested += 1
                self._requested.notify_all()
            if window is not None:
                yield window

    def _launch(self, forward: Any, batch: TokenBatch, pairs: np.ndarray) -> Any:
        sizes = [len(window.queries) for window in self._windows]
        if batch.n_pairs in sizes:
            wanted = min(sizes.index(batch.n_pairs) + 3, len(sizes) + 1)
            with self._requested:
                assert self._requested.wait_for(lambda: self._n_requested >= wanted, 30)
        self.log.append(f"launch {batch.n_pairs}")
        logits, log = forward.forward(batch), self.log

        class Run:
            busy_s = 0.0

            def __init__(self) -> None:
                self.pairs = pairs

            def result(self) -> np.ndarray:
                log.append(f"collect {batch.n_pairs}")
                found: np.ndarray = logits.numpy()
                return found

        return Run()


@pytest.fixture
def scorer(checkpoints: dict[str, Path]) -> Scorer:
    return Scorer.load(checkpoints["bert"], precision="fp32", max_batch_tokens=4096)


WINDOWS = [PairWindow(["search"] * n, [f"{n} {at}" for at in range(n)]) for n in SIZES]


def failing(scorer: Scorer, fail: Callable[[int, int], Exception | None]) -> None:
    scorer._runner._pauses_s = ()
    scorer._runner._forward = Failing(scorer._runner._forward, fail)


def test_a_window_is_launched_before_the_one_before_is_collected(scorer: Scorer) -> None:
    expected = [each.logits.tolist() for each in scorer.score(WINDOWS)]
    later = Later(scorer, WINDOWS)
    found, logs = [], []
    for each in scorer.score(later.windows()):
        found.append(each.logits.tolist())
        logs.append(list(later.log))
    assert found == expected
    assert logs[0] == ["launch 3", "launch 4", "collect 3"]
    assert logs[3] == [*logs[0], "launch 5", "collect 4", "launch 6", "collect 5", "collect 6"]
    assert scorer.stats.n_pairs == 2 * sum(SIZES)


def test_windows_of_several_batches_and_none_have_the_same_scores(scorer: Scorer) -> None:
    windows = [WINDOWS[3], PairWindow([], []), WINDOWS[1], WINDOWS[2]]
    scorer._runner._budget.max_tokens = 16
    expected = [each.logits.tolist() for each in scorer.score(windows)]
    scorer._runner.runs_later = True
    assert [each.logits.tolist() for each in scorer.score(windows)] == expected


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (IndexError("index out of range in self"), ForwardError),
        (RuntimeError("CUDA error: an illegal memory access"), DeviceFaultError),
        (out_of_memory("CUDA out of memory. Tried to allocate 900.00 TiB"), PairTooLargeError),
    ],
)
def test_an_error_of_the_next_window_comes_after_the_scores_of_the_one_before(
    scorer: Scorer, error: Exception, raised: type[Exception]
) -> None:
    expected = [each.logits.tolist() for each in scorer.score(WINDOWS[:2])]
    later = Later(scorer, WINDOWS[:3])
    failing(scorer, lambda n, _: error if n > 2 else None)
    scores = scorer.score(later.windows())
    assert [next(scores).logits.tolist() for _ in range(2)] == expected
    with pytest.raises(raised):
        next(scores)


def test_a_device_that_is_full_between_two_windows_loses_nothing(scorer: Scorer) -> None:
    expected = [each.logits.tolist() for each in scorer.score(WINDOWS)]
    later = Later(scorer, WINDOWS)
    failing(scorer, lambda n, _: out_of_memory() if n in (2, 4) else None)
    assert [each.logits.tolist() for each in scorer.score(later.windows())] == expected


def test_a_batch_in_flight_is_forgotten_where_the_scores_are_no_longer_wanted(
    scorer: Scorer,
) -> None:
    later = Later(scorer, WINDOWS)
    scores = scorer.score(later.windows())
    next(scores)
    assert later.log[1] == "launch 4"
    scores.close()
    scorer._runner.runs_later = False
    assert len(next(iter(scorer.score([PairWindow(["a"], ["b"])]))).logits) == 1
    assert "collect 4" not in later.log
