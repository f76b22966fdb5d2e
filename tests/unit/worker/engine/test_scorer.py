"""The scorer's promises to its callers: order, streaming, totals, refusals, rescue in fp32."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.models.checkpoints import bert
from tests.support.models.vocabularies import CORPUS
from worker.engine.batches.batching import TokenBatch
from worker.engine.kernels.layers import Forward
from worker.engine.kernels.precision import Precision
from worker.engine.prefetch import THREAD
from worker.engine.scorer import PairTooLargeError, PairWindow, Scorer

pytestmark = pytest.mark.slow

WINDOW = PairWindow(["search"] * 5, CORPUS[:5])
EMPTY = PairWindow([], [])


def engine_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == THREAD]


def test_windows_are_scored_in_order_and_may_be_empty(
    checkpoints: dict[str, Path],
) -> None:
    scorer = Scorer.load(checkpoints["bert"])
    windows = [WINDOW, EMPTY, PairWindow(["a"], ["b"])]
    assert [len(scores.logits) for scores in scorer.score(windows)] == [5, 0, 1]


def test_scores_have_the_documented_dtypes(checkpoints: dict[str, Path]) -> None:
    for name in ("bert", "megatron-bert", "qwen3"):
        (scores,) = Scorer.load(checkpoints[name]).score([WINDOW])
        kinds = (scores.logits.dtype, scores.n_tokens.dtype, scores.truncated.dtype)
        assert kinds == (np.float32, np.int32, np.bool_)


def test_equal_pairs_are_scored_once(checkpoints: dict[str, Path]) -> None:
    scorer = Scorer.load(checkpoints["bert"])
    (scores,) = scorer.score([PairWindow(["q", "q", "r", "q"], ["d", "d", "d", "e"])])
    assert scores.logits[0] == scores.logits[1] != scores.logits[2]
    assert (scorer.stats.n_pairs, scorer.stats.n_unique_pairs) == (4, 3)


def test_stats_add_up(checkpoints: dict[str, Path]) -> None:
    scorer = Scorer.load(checkpoints["bert"])
    assert scorer.stats.device_busy_share == 0
    scored = list(scorer.score([WINDOW, WINDOW]))
    stats = scorer.stats
    assert stats.n_tokens == sum(int(scores.n_tokens.sum()) for scores in scored)
    assert 0 < stats.device_busy_s < stats.wall_s
    assert 0 < stats.device_busy_share < 1


def test_at_most_two_windows_are_read_ahead(checkpoints: dict[str, Path]) -> None:
    n_read = 0

    def windows() -> Iterator[PairWindow]:
        nonlocal n_read
        for _ in range(50):
            n_read += 1
            yield WINDOW

    scores = Scorer.load(checkpoints["bert"]).score(windows())
    next(scores)
    assert n_read <= 4 and engine_threads()
    assert isinstance(scores, Generator)
    scores.close()
    assert not engine_threads()


def test_an_error_of_the_source_is_raised_after_the_windows_before_it(
    checkpoints: dict[str, Path],
) -> None:
    def windows() -> Iterator[PairWindow]:
        yield WINDOW
        raise OSError("the disk is gone")

    scores = Scorer.load(checkpoints["bert"]).score(windows())
    assert len(next(scores).logits) == 5
    with pytest.raises(OSError, match="the disk is gone"):
        next(scores)
    assert not engine_threads()


def test_a_model_that_overflows_is_scored_again_in_fp32(tmp_path: Path) -> None:
    torch.manual_seed(0)
    folder = bert(tmp_path / "overflowing", num_labels=1)
    weights = load_file(folder / "model.safetensors")
    weights["bert.encoder.layer.0.intermediate.dense.weight"] *= 1e6  # above fp16's 65504
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (exact,) = Scorer.load(folder, precision="fp32").score([WINDOW])
    (rescued,) = Scorer.load(folder, precision="fp16").score([WINDOW])
    assert np.isfinite(exact.logits).all()
    assert rescued.logits.tolist() == exact.logits.tolist()


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_agreement_with_fp32_is_measured(
    precision: Precision, checkpoints: dict[str, Path]
) -> None:
    scorer = Scorer.load(checkpoints["bert"], precision=precision)
    documents = [text[:cut] for text in CORPUS[:5] for cut in range(10, 50, 4)]
    agreement = scorer.agreement(PairWindow(["a", "search"] * 25, documents))
    assert (agreement.n_pairs, agreement.n_queries) == (50, 2)
    assert 0.8 < agreement.kendall_tau <= 1
    assert 0.6 < agreement.top10_overlap <= 1
    assert 0 < agreement.max_difference < 0.3


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("bert", {"precision": "fp8"}, "needs a Hopper GPU"),
        ("bert", {"precision": "fp4"}, "is none of"),
        ("megatron-bert", {"precision": "int8"}, "no packed forward for megatron-bert"),
        ("bert", {"max_length": 3}, "leaves no room for text"),
    ],
)
def test_options_that_are_not_supported_are_refused(
    name: str, options: dict[str, Any], complaint: str, checkpoints: dict[str, Path]
) -> None:
    with pytest.raises(ValueError, match=complaint):
        Scorer.load(checkpoints[name], **options)


def test_a_model_with_three_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 labels; a cross-encoder has one or two"):
        Scorer.load(bert(tmp_path / "three", num_labels=3))


class _SmallDevice:
    """A forward that runs out of memory above some tokens, as CUDA reports it."""

    def __init__(self, forward: Forward, room: int) -> None:
        self._forward = forward
        self._room = room

    def forward(self, batch: TokenBatch) -> torch.Tensor:
        if len(batch.ids) > self._room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self._forward.forward(batch)


def test_out_of_memory_halves_the_budget_and_loses_nothing(checkpoints: dict[str, Path]) -> None:
    (expected,) = Scorer.load(checkpoints["bert"]).score([WINDOW])
    scorer = Scorer.load(checkpoints["bert"])
    longest = int(expected.n_tokens.max())
    runner = scorer._runner
    runner._forward = _SmallDevice(runner._forward, longest)
    (scores,) = scorer.score([WINDOW])
    assert scores.logits.tolist() == expected.logits.tolist()
    assert runner.max_batch_tokens < 2 * longest


def test_a_pair_that_does_not_fit_alone_is_named(checkpoints: dict[str, Path]) -> None:
    scorer = Scorer.load(checkpoints["bert"])
    scorer._runner._forward = _SmallDevice(scorer._runner._forward, 10)
    window = PairWindow(["a", "a", "search"], ["b", "b", CORPUS[0]])
    with pytest.raises(PairTooLargeError, match="pair 2 of the window") as caught:
        list(scorer.score([window]))
    assert caught.value.row == 2


def test_other_errors_never_halve_the_budget(checkpoints: dict[str, Path]) -> None:
    scorer = Scorer.load(checkpoints["bert"])

    class Broken:
        def forward(self, batch: TokenBatch) -> torch.Tensor:
            raise RuntimeError("a kernel failed")

    scorer._runner._forward = Broken()
    with pytest.raises(RuntimeError, match="a kernel failed"):
        list(scorer.score([WINDOW]))
