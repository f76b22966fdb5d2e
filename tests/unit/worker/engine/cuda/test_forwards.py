"""Every path and family scores on CUDA, near fp32, without a wait of the host for the device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.cuda.card import Card
from tests.support.cuda.runtime import install
from tests.unit.worker.engine.cuda.conftest import MODELS, WINDOW, near
from worker.engine.device.faults import fault_of
from worker.engine.kernels.precision import Precision
from worker.engine.scorer import Scorer

pytestmark = pytest.mark.slow

# Their attention adds distances to its scores, which the flash kernel cannot.
OWN_ATTENTION = ("mpnet", "deberta", "deberta-c2p", "deberta-p2c")
PADDED = ("megatron-bert", "causal")
CASES: list[tuple[str, Precision, str]] = [
    *((name, "bf16", "cuda:1") for name in MODELS),
    *((name, "fp16", "cuda:0") for name in ("bert", "modernbert", "qwen3-chat", "megatron-bert")),
    *((name, "fp32", "cuda:1") for name in ("bert", "modernbert", "qwen3-chat", "deberta")),
]


@pytest.mark.parametrize(("name", "precision", "device"), CASES)
def test_a_model_scores_near_fp32_and_the_host_waits_for_results_only(
    name: str,
    precision: Precision,
    device: str,
    card: Card,
    folder_of: Callable[[str], Path],
    exact: Callable[[str], np.ndarray],
) -> None:
    scorer = Scorer.load(folder_of(name), device=device, precision=precision, max_batch_tokens=300)
    assert scorer.info.path == "padded" or (name in PADDED) <= (scorer.info.path == "causal")
    card.begin()
    scores = list(scorer.score([WINDOW] * 2))
    for each in scores:
        bound = near(precision, exact(name))
        np.testing.assert_allclose(each.logits, exact(name), rtol=0, atol=bound)
    assert card.current == 0
    assert [queue.n_launched > 0 for queue in card.queues] == _only(device)
    # transformers asks whether a padded batch has padding.
    assert set(card.waits) <= ({"_local_scalar_dense"} if name in PADDED else set())
    # The next batch is on the device before one is waited for, also between two windows.
    assert len(card.n_ahead) >= 4
    assert [n > 0 for n in card.n_ahead] == [True] * (len(card.n_ahead) - 1) + [False]
    has_flash = precision != "fp32" and name not in (*OWN_ATTENTION, *PADDED)
    assert ("_varlen_attn" in card.ops) == has_flash


def _only(device: str) -> list[bool]:
    return [device == f"cuda:{index}" for index in range(2)]


def test_a_card_without_bf16_scores_in_fp16_by_plain_attention(
    monkeypatch: pytest.MonkeyPatch,
    card: Card,
    folder_of: Callable[[str], Path],
    exact: Callable[[str], np.ndarray],
) -> None:
    install(monkeypatch, card, capability=(7, 5))
    for name in ("bert", "modernbert", "qwen3-chat"):
        scorer = Scorer.load(folder_of(name), device="cuda:1", max_batch_tokens=300)
        card.begin()
        (scores,) = scorer.score([WINDOW])
        assert scorer.info.precision == "fp16"
        bound = near("fp16", exact(name))
        np.testing.assert_allclose(scores.logits, exact(name), rtol=0, atol=bound)
        assert not card.waits and "_varlen_attn" not in card.ops


def test_fp32_is_measured_next_to_bf16_on_the_same_device(
    card: Card, folder_of: Callable[[str], Path]
) -> None:
    scorer = Scorer.load(folder_of("bert"), device="cuda:1", precision="bf16", max_batch_tokens=300)
    agreement = scorer.agreement(WINDOW)
    assert 0 < agreement.max_difference < 0.05
    assert card.queues[0].n_launched == 0


def test_the_budget_is_measured_on_the_models_device(
    card: Card, folder_of: Callable[[str], Path]
) -> None:
    # The measured batch shares no prefix.
    for name, device in (("bert", "cuda:0"), ("bert", "cuda:1"), ("qwen3", "cuda:1")):
        card.begin()
        scorer = Scorer.load(folder_of(name), device=device, precision="bf16")
        assert 512 < scorer.max_batch_tokens <= 131_072
        assert [queue.n_launched > 0 for queue in card.queues] == _only(device)
        assert set(card.waits) <= {"copy", "synchronize"}


def test_a_device_that_is_not_there_is_a_failed_device(
    card: Card, folder_of: Callable[[str], Path]
) -> None:
    with pytest.raises(RuntimeError, match="invalid device ordinal") as caught:
        Scorer.load(folder_of("bert"), device="cuda:7", precision="bf16")
    assert fault_of(caught.value) == "device"
