"""Any launch may find the card's memory full: no score is lost and no pair is blamed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.cuda.card import Card
from tests.unit.worker.engine.cuda.conftest import WINDOW, near
from worker.engine.device.faults import fault_of
from worker.engine.scorer import DeviceFullError, Scorer

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("name", "step"), [("bert-one-layer", 1), ("qwen3", 13)])
def test_memory_that_is_full_at_one_launch_loses_no_score(
    name: str,
    step: int,
    card: Card,
    folder_of: Callable[[str], Path],
    exact: Callable[[str], np.ndarray],
) -> None:
    scorer = Scorer.load(
        folder_of(name), device="cuda:1", precision="bf16", max_batch_tokens=10_000
    )
    card.begin()
    list(scorer.score([WINDOW]))
    for full_at in range(1, card.n_launches + 1, step):
        card.begin()
        card.is_full = lambda n, full_at=full_at: n == full_at
        (scores,) = scorer.score([WINDOW])
        assert card.n_launches > full_at
        bound = near("bf16", exact(name))
        np.testing.assert_allclose(scores.logits, exact(name), rtol=0, atol=bound)


def test_memory_that_stays_full_blames_no_pair(
    card: Card, folder_of: Callable[[str], Path]
) -> None:
    scorer = Scorer.load(folder_of("bert"), device="cuda:1", precision="bf16", max_batch_tokens=99)
    scorer._runner._pauses_s = ()
    card.begin()
    for full_from in (1, 100):
        card.is_full = lambda n, full_from=full_from: n >= full_from
        card.n_launches = 0
        with pytest.raises(DeviceFullError):
            list(scorer.score([WINDOW] * 2))


def test_memory_that_is_full_while_loading_is_a_full_device(
    card: Card, folder_of: Callable[[str], Path]
) -> None:
    def load() -> Scorer:
        return Scorer.load(folder_of("bert"), device="cuda:1", precision="bf16")

    load()  # the first of a process prepares some things once
    card.begin()
    load()
    for full_at in range(1, card.n_launches, 60):
        card.begin()
        card.is_full = lambda n, full_at=full_at: n >= full_at
        with pytest.raises(RuntimeError) as caught:
            load()
        assert fault_of(caught.value) == "memory"
