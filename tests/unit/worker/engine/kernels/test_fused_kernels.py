"""Fused kernels give the scores of the plain operators; they are off by default."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.models.checkpoints import modernbert
from worker.engine.kernels import fused_kernels, layers, rotary
from worker.engine.kernels.fused_kernels import fuse_on
from worker.engine.kernels.precision import resolve_precision
from worker.engine.scorer import PairWindow, Scorer

WINDOW = PairWindow(["a"] * 4, ["b", "b c d", "b c d e f", "g h i j k l m n"])


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take the operators of CUDA on the CPU, and trace functions without compiling them."""
    monkeypatch.setattr(fused_kernels, "_BACKEND", "aot_eager")
    for module in (layers, rotary):
        monkeypatch.setattr(module, "rows_kernels", lambda example, width: None)
    monkeypatch.setattr(layers, "_can_pack", lambda weight: False)
    yield
    fuse_on()


def score(folder: Path) -> np.ndarray:
    (scores,) = Scorer.load(folder, precision="fp32").score([WINDOW])
    return scores.logits


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # within torch's compiler
def test_fused_kernels_score_as_the_plain_operators(
    plain: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    folder = modernbert(tmp_path / "model", num_hidden_layers=2, max_position_embeddings=64)
    expected = score(folder)
    used: list[str] = []
    compiled = fused_kernels._compiled.__wrapped__

    def noted(function: Callable[..., object]) -> Callable[..., object]:
        used.append(function.__name__)
        return compiled(function)

    monkeypatch.setattr(fused_kernels, "_compiled", noted)
    monkeypatch.setattr(shutil, "which", str)
    fuse_on("cpu")
    np.testing.assert_allclose(score(folder), expected, rtol=0, atol=2e-6)
    assert set(used) == {"normed_sum", "sum_and_norm", "turned_pairs"}


def test_a_host_without_a_compiler_is_refused_with_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(fused_kernels, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs a C compiler and triton, or set it to off"):
        fuse_on("cuda")


def test_fp8_is_refused_without_fused_quantizing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    with pytest.raises(ValueError, match="fp8 needs RANKMILL_FUSED=on"):
        resolve_precision("fp8", "cuda")
    monkeypatch.setattr(fused_kernels, "_fused_devices", {"cuda"})
    assert resolve_precision("fp8", "cuda") == "fp8"
