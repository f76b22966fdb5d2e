"""A full device: batches that fit go on, and a pair is given up only for a reason."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.models.checkpoints import bert
from tests.support.models.failing import Failing, out_of_memory
from tests.support.models.vocabularies import CORPUS
from worker.engine.batches.batch_cuts import packed_batches
from worker.engine.batches.batching import TokenBatch
from worker.engine.batches.pairs import EncodedWindow
from worker.engine.device import memory, runner
from worker.engine.device.runner import Runner
from worker.engine.scorer import (
    DeviceFaultError,
    DeviceFullError,
    ForwardError,
    PairTooLargeError,
    PairWindow,
    Scorer,
)

WINDOW = PairWindow(
    ["search"] * 40, [f"{CORPUS[at % 5]} {CORPUS[at % 3]} number {at}" for at in range(40)]
)
BUDGET = 256


@pytest.fixture
def scorer(checkpoints: dict[str, Path]) -> Scorer:
    return Scorer.load(checkpoints["bert"], precision="fp32", max_batch_tokens=BUDGET)


def failing(scorer: Scorer, fail: Callable[[int, int], Exception | None]) -> Failing:
    scorer._runner._pauses_s = (0.0,) * 3
    scorer._runner._forward = wrapped = Failing(scorer._runner._forward, fail)
    return wrapped


def logits(scorer: Scorer, *windows: PairWindow) -> list[float]:
    return np.concatenate([each.logits for each in scorer.score(windows)]).tolist()


def test_a_device_full_for_a_while_loses_no_row_and_the_budget_recovers(
    scorer: Scorer,
) -> None:
    expected = logits(scorer, *[WINDOW] * 4)
    alloc_failed = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
    errors = [out_of_memory(), RuntimeError(alloc_failed)]
    wrapped = failing(scorer, lambda n, _: errors[n % 2] if 3 <= n < 8 else None)
    assert logits(scorer, *[WINDOW] * 4) == pytest.approx(expected, abs=1e-6)
    assert min(wrapped.sizes) <= BUDGET // 4
    assert scorer.max_batch_tokens == BUDGET
    # It never exceeds its first value.
    logits(scorer, *[WINDOW] * 8)
    assert scorer.max_batch_tokens == BUDGET


def test_a_budget_that_keeps_failing_is_tried_less_and_less_often(scorer: Scorer) -> None:
    wrapped = failing(scorer, lambda _, n_tokens: out_of_memory() if n_tokens > 200 else None)
    logits(scorer, *[WINDOW] * 12)
    n_failed = wrapped.n_calls - len(wrapped.sizes)
    assert 2 <= n_failed <= 6, n_failed


def test_a_device_that_stays_full_blames_no_row(scorer: Scorer) -> None:
    wrapped = failing(scorer, lambda n, _: out_of_memory() if n > 1 else None)
    with pytest.raises(DeviceFullError, match=r"no room for .* tokens, which should fit"):
        logits(scorer, WINDOW)
    assert wrapped.n_calls < 20


def test_a_device_that_is_full_at_the_first_batch_blames_no_row(scorer: Scorer) -> None:
    failing(scorer, lambda *_: out_of_memory())
    with pytest.raises(DeviceFullError):
        logits(scorer, WINDOW)


def test_a_pair_too_long_for_an_empty_device_is_named_at_once_or_after_pauses(
    scorer: Scorer,
) -> None:
    window = PairWindow(["a"] * 3, ["b", " ".join(CORPUS), "c"])
    wrapped = failing(scorer, lambda _, n_tokens: out_of_memory() if n_tokens > 60 else None)
    with pytest.raises(PairTooLargeError, match="pair 1 of the window"):
        logits(scorer, window)
    n_patient, wrapped.n_calls = wrapped.n_calls, 0
    with pytest.raises(PairTooLargeError):  # no pauses for another of that length
        logits(scorer, window)
    assert wrapped.n_calls < n_patient
    scorer._runner._shortest_misfit = float("inf")
    huge = "CUDA out of memory. Tried to allocate 900.00 TiB"
    wrapped.fail = lambda _, n_tokens: out_of_memory(huge) if n_tokens > 60 else None
    wrapped.n_calls = 0
    with pytest.raises(PairTooLargeError, match="pair 1 of the window"):
        logits(scorer, window)
    assert wrapped.n_calls < n_patient


def test_a_long_pair_is_not_blamed_while_other_processes_fill_the_device(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "is_ours_alone", lambda device: False)
    failing(scorer, lambda _, n_tokens: out_of_memory() if n_tokens > 60 else None)
    with pytest.raises(DeviceFullError):
        logits(scorer, PairWindow(["a"] * 2, ["b", " ".join(CORPUS)]))


@pytest.mark.parametrize(
    ("free_gib", "reserved_gib", "is_alone"), [(60, 18, True), (20, 18, False), (0, 79, True)]
)
def test_memory_of_other_processes_and_impossible_requests_are_recognized(
    monkeypatch: pytest.MonkeyPatch, free_gib: int, reserved_gib: int, is_alone: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda d: (free_gib << 30, 80 << 30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda d: reserved_gib << 30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda d: 10 << 30)
    assert memory.is_ours_alone("cuda:1") == is_alone
    assert memory.asks_too_much("Tried to allocate 71.00 GiB", "cuda:1")
    assert not memory.asks_too_much("Tried to allocate 69.00 GiB", "cuda:1")
    assert memory.asks_too_much("you tried to allocate 1000000000000000 bytes.", "cpu")
    assert not memory.asks_too_much("out of memory", "cpu")


def test_memory_is_released_only_after_the_activations_are_gone(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    class Full:
        def forward(self, batch: TokenBatch) -> torch.Tensor:
            activations = torch.zeros(4)
            held.append(weakref.ref(activations))
            raise out_of_memory()

    seen: list[bool] = []
    monkeypatch.setattr(runner, "release", lambda device: seen.append(held[-1]() is None))
    scorer._runner._pauses_s = ()
    scorer._runner._forward = Full()
    with pytest.raises(DeviceFullError):
        logits(scorer, WINDOW)
    assert seen and all(seen)


def test_a_failed_device_is_named_and_a_failed_forward_too(scorer: Scorer) -> None:
    lost = torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nhint")
    wrapped = failing(scorer, lambda n, _: lost if n > 1 else None)
    with pytest.raises(DeviceFaultError, match=r"^CUDA error: an illegal memory access was en"):
        logits(scorer, WINDOW)
    wrapped.fail = lambda *_: IndexError("index out of range in self")
    with pytest.raises(ForwardError, match="IndexError: index out of range"):
        logits(scorer, WINDOW)
    scorer.prove()
    wrapped.fail = lambda *_: lost
    with pytest.raises(DeviceFaultError):
        scorer.prove()
    wrapped.fail = lambda *_: None
    scorer.prove()
    assert BUDGET - 128 < wrapped.sizes[-1] <= BUDGET


def test_fp32_that_has_no_room_is_left_out(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    def no_room() -> Runner:
        raise out_of_memory("CUDA out of memory. Tried to allocate 9.10 GiB")

    scorer = Scorer.load(checkpoints["bert"], precision="bf16")
    scorer._rescue.load = no_room
    with pytest.raises(DeviceFullError, match=r"fp32 does not fit next to bf16: .*9\.10 GiB"):
        scorer.agreement(WINDOW)

    folder = bert(tmp_path / "overflowing", num_labels=1)
    weights = load_file(folder / "model.safetensors")
    weights["bert.encoder.layer.0.intermediate.dense.weight"] *= 1e6  # above fp16's 65504
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    scorer = Scorer.load(folder, precision="fp16")
    tries: list[int] = []
    scorer._rescue.load = lambda: (tries.append(1), no_room())[1]
    for scores in scorer.score([WINDOW, WINDOW]):
        assert not np.isfinite(scores.logits).any()
        assert "does not fit next to fp16" in str(scores.no_rescue)
    assert len(tries) == 1  # it is not loaded again for each window


def test_the_budget_is_measured_on_a_nearly_full_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("synchronize", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda device: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3000 * 1024)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**6, 10**9))
    monkeypatch.setattr(memory, "release", lambda device: None)
    monkeypatch.setattr(TokenBatch, "to", lambda self, device: self)

    class Card:
        def forward(self, batch: TokenBatch) -> torch.Tensor:
            assert not torch.backends.cudnn.enabled
            if len(batch.ids) > most:
                raise out_of_memory()
            return torch.zeros(batch.n_pairs)

    most = 1024
    assert memory._probe(Card(), "cuda", 512) == 512
    most = 100
    with pytest.raises(DeviceFullError, match="cuda has no room for 512 tokens"):
        memory._probe(Card(), "cuda", 512)


class _Device:
    """A device that does nothing before its event is waited for."""

    def __init__(self) -> None:
        self.queue: list[Callable[[], Any]] = []
        self.n_done = 0


def test_results_of_a_device_other_than_the_first_are_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    devices, current = [_Device(), _Device()], [0]

    class Event:
        def __init__(self, enable_timing: bool = False) -> None:
            self.at = 0

        def record(self) -> None:
            self.device = devices[current[0]]
            self.at = self.device.n_done + len(self.device.queue)

        def synchronize(self) -> None:
            while self.device.n_done < self.at:
                self.device.queue.pop(0)()
                self.device.n_done += 1

        def elapsed_time(self, other: Event) -> float:
            return 1.0

    class Current:
        def __init__(self, device: str) -> None:
            self.index = torch.device(device).index

        def __enter__(self) -> None:
            self.before, current[0] = current[0], self.index

        def __exit__(self, *_: object) -> None:
            current[0] = self.before

    class Host:
        def __init__(self, shape: Any, dtype: Any, pin_memory: bool) -> None:
            self.values = np.full(shape, -777.0, np.float32)

        def copy_(self, logits: torch.Tensor, non_blocking: bool) -> None:
            devices[1].queue.append(lambda: self.values.__setitem__(slice(None), logits.numpy()))

        def numpy(self) -> np.ndarray:
            return self.values

    class Lengths:
        def forward(self, batch: TokenBatch) -> torch.Tensor:
            assert current[0] == 1
            return batch.starts.diff().float()

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "device", Current)
    monkeypatch.setattr(torch, "empty", lambda shape, **options: Host(shape, **options))
    monkeypatch.setattr(TokenBatch, "to", lambda self, device: self)
    lengths = np.array([3, 9, 4, 1, 7])
    window = EncodedWindow(
        ids=np.ones(lengths.sum(), np.int32),
        types=None,
        lengths=lengths,
        truncated=np.zeros(5, bool),
        pair_of_row=np.arange(5),
    )
    run = Runner(Lengths(), device="cuda:1", cut=packed_batches, max_batch_tokens=10)
    assert run.logits(window, np.arange(5)).tolist() == lengths.tolist()
    assert current == [0]
