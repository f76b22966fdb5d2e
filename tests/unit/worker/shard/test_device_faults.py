"""A shard on a device that fails or is full is tried again, and no row is blamed."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from rankmill.contract.job import JobSpec
from rankmill.contract.results import ShardReport
from rankmill.errors import DeviceFault, DeviceFull, ModelUnavailable, TransientError
from rankmill.output.output import Job
from tests.support.inputs import everything_under, pairs, read_output, read_rejected
from tests.support.models.checkpoints import bert
from tests.support.models.failing import Failing, out_of_memory
from tests.support.shards import planned, run_all
from worker import models
from worker.engine.batches.batching import TokenBatch
from worker.engine.device.runner import Runner
from worker.engine.scorer import ForwardError, PairWindow, Scorer
from worker.finalize import make_manifest
from worker.models import load
from worker.null_scorer import NullScorer

pytestmark = pytest.mark.slow

LOST = "CUDA error: an illegal memory access was encountered"


@pytest.fixture
def own_model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return bert(tmp_path / "own", num_labels=1)


def run(job: Job, fail: Callable[[int, int], Exception | None]) -> ShardReport:
    model = load(job.spec)
    assert isinstance(model.scorer, Scorer)
    runner = model.scorer._runner
    runner._forward, runner._pauses_s = Failing(runner._forward, fail), (0.0,) * 4
    (report,) = run_all(job)
    return report


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.AcceleratorError(LOST), DeviceFault),
        (
            RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable"),
            DeviceFault,
        ),
        (out_of_memory(), DeviceFull),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), DeviceFull),
    ],
)
def test_a_device_that_fails_or_stays_full_puts_the_shard_off(
    tmp_path: Path, own_model: Path, error: Exception, kind: type[TransientError]
) -> None:
    job = planned(pairs(4, 5), tmp_path, own_model)
    with pytest.raises(kind) as caught:
        run(job, lambda n, _: error if n >= 2 else None)
    assert caught.value.transient and "\n" not in str(caught.value)
    assert not [name for name in everything_under(tmp_path) if name.startswith("out")]


def test_a_card_that_is_full_for_a_while_rejects_nothing(tmp_path: Path, own_model: Path) -> None:
    job = planned(pairs(4, 5), tmp_path, own_model)
    report = run(job, lambda n, _: out_of_memory() if 2 <= n < 6 else None)
    assert (report.n_scored, report.n_rejected) == (20, 0)


def test_a_forward_that_fails_once_rejects_no_row(tmp_path: Path, own_model: Path) -> None:
    job = planned(pairs(4, 5), tmp_path, own_model)
    with pytest.raises(ForwardError):
        run(job, lambda n, _: RuntimeError("a kernel failed") if n == 2 else None)
    assert not [name for name in everything_under(tmp_path) if name.startswith("out")]


def test_rows_that_break_a_forward_alone_are_rejected_however_many(
    tmp_path: Path, own_model: Path
) -> None:
    """An id beyond the vocabulary does so. The comparison with fp32 leaves these rows out, too."""
    rows = pairs(5, 8)
    bad = [1, 9, *range(16, 24), 39]  # a window of 8 among them
    for row in bad:
        rows[row]["document"] = f"[MASK] {row}"
    job = planned(rows, tmp_path, own_model, precision="bf16")
    report = run_without_mask(job)
    reason = "its forward fails with IndexError; the worker's log has the message"
    assert report.rejects_by_reason == {f"the model refuses it: {reason}": len(bad)}
    assert [row["row"] for row in read_rejected(tmp_path / "out")] == bad
    assert report.n_scored == 40 - len(bad)
    assert report.agreement is not None


def run_without_mask(job: Job) -> ShardReport:
    model = load(job.spec)
    assert isinstance(model.scorer, Scorer)
    mask = AutoTokenizer.from_pretrained(job.spec.model_id).mask_token_id
    load_exact = model.scorer._rescue.load

    class WithoutMask:
        def __init__(self, inner: Any) -> None:
            self.forward_of_others = inner.forward

        def forward(self, batch: TokenBatch) -> torch.Tensor:
            if (batch.ids == mask).any():
                raise IndexError("index out of range in self")
            logits: torch.Tensor = self.forward_of_others(batch)
            return logits

    def narrowed(runner: Runner) -> Runner:
        runner._forward = WithoutMask(runner._forward)
        return runner

    narrowed(model.scorer._runner)
    model.scorer._rescue.load = lambda: narrowed(load_exact())
    (report,) = run_all(job)
    return report


def test_a_model_that_cannot_score_any_pair_fails_the_job(tmp_path: Path, own_model: Path) -> None:
    job = planned(pairs(4, 5), tmp_path, own_model)
    with pytest.raises(ForwardError, match="RuntimeError: no such shape"):
        run(job, lambda n, _: RuntimeError("no such shape"))
    assert not [name for name in everything_under(tmp_path) if name.startswith("out")]


def test_a_forward_that_fails_in_the_search_for_a_refused_row_rejects_none(
    tmp_path: Path, own_model: Path
) -> None:
    """The tokenizer refuses a window once, then the forward fails for single rows."""
    job = planned(pairs(4, 5), tmp_path, own_model)
    scorer = load(job.spec).scorer
    assert isinstance(scorer, Scorer)
    encode, n_calls = scorer._encoder.encode, iter(range(10**6))

    class Refusing:
        def encode(self, window: PairWindow) -> Any:
            if next(n_calls) == 1:
                raise ValueError("bad text")
            return encode(window)

    scorer._encoder = Refusing()
    broken = RuntimeError("a kernel failed")
    with pytest.raises(ValueError, match="bad text"):
        run(job, lambda n, _: broken if n == 3 else None)
    assert not [name for name in everything_under(tmp_path) if name.startswith("out")]


def test_an_agreement_without_room_is_not_measured_and_says_so(
    tmp_path: Path, own_model: Path
) -> None:
    job = planned(pairs(4, 5), tmp_path, own_model, precision="bf16")

    def no_room() -> Any:
        raise out_of_memory("CUDA out of memory. Tried to allocate 9.10 GiB")

    scorer = load(job.spec).scorer
    assert isinstance(scorer, Scorer)
    scorer._rescue.load = no_room
    report = run(job, lambda *_: None)
    assert report.n_scored == 20 and report.agreement is None
    manifest = make_manifest(job, [report])
    assert manifest.agreement is None
    assert str(manifest.no_agreement).startswith("not measured: fp32 does not fit next to bf16: ")


def test_rows_that_overflow_where_fp32_has_no_room_are_rejected_with_that_reason(
    tmp_path: Path, own_model: Path
) -> None:
    class Overflowing:
        def forward(self, batch: Any) -> torch.Tensor:
            return torch.full((batch.n_pairs,), float("inf"))

    def no_room() -> Any:
        raise out_of_memory("CUDA out of memory. Tried to allocate 9.10 GiB")

    job = planned(pairs(2, 5), tmp_path, own_model, precision="bf16")
    scorer = load(job.spec).scorer
    assert isinstance(scorer, Scorer)
    scorer._rescue.load, scorer._runner._forward = no_room, Overflowing()
    report = run(job, lambda *_: None)
    (reason,) = {row["reason"] for row in read_rejected(tmp_path / "out")}
    assert reason.startswith("score is not finite, and fp32 does not fit next to bf16: ")
    assert report.n_rejected == 10 and read_output(tmp_path / "out") == []


def test_the_model_before_is_gone_when_the_next_is_loaded(
    tmp_path: Path, own_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = bert(tmp_path / "other", num_labels=1)

    def spec(folder: Path) -> JobSpec:
        return JobSpec(input_uri="in", output_uri="out", model_id=str(folder), precision="fp32")

    first = load(spec(own_model)).scorer
    assert load(spec(own_model)).scorer is first
    assert isinstance(first, Scorer)
    held = weakref.ref(first)
    list(first.score([PairWindow(["a"], ["b"])]))
    del first
    seen: list[bool] = []
    real = Scorer.load

    def watched(*arguments: Any, **options: Any) -> Scorer:
        seen.append(held() is None)
        return real(*arguments, **options)

    monkeypatch.setattr(Scorer, "load", watched)
    load(spec(other))
    gc.collect()
    assert seen == [True]


def test_the_scoring_does_not_say_which_of_several_gpus_was_used() -> None:
    scorer = NullScorer(None)
    scorer.info = replace(scorer.info, device="cuda:1")
    job = JobSpec(input_uri="in", output_uri="out", model_id="null")
    assert models._scoring(scorer, job, "", "").device == "cuda"


def test_a_driver_that_fails_while_a_model_is_loaded_is_not_the_models_fault(
    own_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = JobSpec(input_uri="in", output_uri="out", model_id=str(own_model), precision="fp32")
    for error, kind in (
        (RuntimeError("No CUDA GPUs are available"), DeviceFault),
        (AssertionError("Torch not compiled with CUDA enabled"), DeviceFault),
        (torch.OutOfMemoryError("CUDA out of memory."), DeviceFull),
        (ValueError("3 labels; a cross-encoder has one or two"), ModelUnavailable),
    ):

        def broken(*_: Any, error: Exception = error, **__: Any) -> Scorer:
            raise error

        monkeypatch.setattr(Scorer, "load", broken)
        models.release()
        with pytest.raises(kind):
            load(spec)
