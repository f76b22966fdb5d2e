"""On a CUDA device the packed path agrees with fp32, and faults are recognized."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.models.checkpoints import bert, modernbert, roberta
from tests.support.models.vocabularies import CORPUS
from worker.engine.device.faults import fault_of
from worker.engine.device.memory import asks_too_much
from worker.engine.kernels.fused_kernels import fuse_on
from worker.engine.kernels.precision import Precision
from worker.engine.scorer import PairWindow, Scorer

# The one skip of CI, whose machines have no GPU.
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")

BUILDERS = {"bert": bert, "xlm-roberta": roberta, "modernbert": modernbert}
WINDOW = PairWindow(
    ["a fast search"] * 60, [" ".join(CORPUS)[: 7 * i] for i in range(59)] + [" ".join(CORPUS * 9)]
)


@pytest.fixture(params=BUILDERS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    # Flash attention has kernels for heads of certain multiples of 8.
    shape = {"hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 128}
    return BUILDERS[request.param](tmp_path / "model", num_labels=1, **shape)


def score(folder: Path, device: str, precision: Precision, budget: int | None = None) -> np.ndarray:
    scorer = Scorer.load(
        folder,
        device=device,
        precision=precision,
        max_batch_tokens=budget,
    )
    (scores,) = scorer.score([WINDOW])
    return scores.logits


def test_fp32_equals_the_cpu(folder: Path) -> None:
    expected = score(folder, "cpu", "fp32")
    np.testing.assert_allclose(score(folder, "cuda", "fp32"), expected, rtol=0, atol=1e-4)


def test_bf16_is_near_fp32(folder: Path) -> None:
    expected = score(folder, "cpu", "fp32")
    logits = score(folder, "cuda", "bf16")
    np.testing.assert_allclose(logits, expected, rtol=0, atol=0.05 * np.abs(expected).max() + 0.05)


def test_fp8_is_near_fp32_on_hopper(folder: Path) -> None:
    if torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("fp8 needs compute capability 9.0")
    expected = score(folder, "cpu", "fp32")
    fuse_on("cuda")
    logits = score(folder, "cuda", "fp8")
    np.testing.assert_allclose(logits, expected, rtol=0, atol=0.2 * np.abs(expected).max() + 0.2)


def test_the_budget_is_measured_once(folder: Path) -> None:
    first = Scorer.load(folder, device="cuda")._runner.max_batch_tokens
    assert first == Scorer.load(folder, device="cuda")._runner.max_batch_tokens > 1000


def test_device_time_is_measured(folder: Path) -> None:
    scorer = Scorer.load(folder, device="cuda")
    list(scorer.score([WINDOW] * 3))
    assert 0 < scorer.stats.device_busy_s < scorer.stats.wall_s


def test_a_named_device_scores_as_the_current_one(folder: Path) -> None:
    last = f"cuda:{torch.cuda.device_count() - 1}"
    expected = score(folder, "cuda", "bf16")
    np.testing.assert_allclose(score(folder, last, "bf16"), expected, rtol=0, atol=1e-2)


def test_out_of_memory_is_recognized() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50, dtype=torch.uint8, device="cuda")
    assert fault_of(caught.value) == "memory"
    assert asks_too_much(str(caught.value), "cuda")


ASSERTED = """
import torch
from worker.engine.device.faults import fault_of
table = torch.zeros(4, device="cuda")
for _ in range(2):  # the error is sticky: correct calls fail too
    try:
        table[torch.tensor([9], device="cuda")].sum().item()
    except RuntimeError as error:
        print(fault_of(error))
"""


def test_an_assertion_on_the_device_is_recognized_as_a_failed_device() -> None:
    command = [sys.executable, "-c", ASSERTED]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.split() == ["device", "device"], done.stderr


def test_a_working_device_proves_itself(folder: Path) -> None:
    Scorer.load(folder, device="cuda").prove()
