"""Packed attention calls torch's varlen_attn with the right arguments in each of its versions.

The kernels need a GPU (tests/gpu). Here plain torch has their signatures and their checks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.attention import varlen

from tests.support.cuda.flash import varlen_attention
from tests.support.models.checkpoints import bert, modernbert, roberta
from tests.support.models.decoders import qwen3_st
from tests.support.models.vocabularies import CORPUS
from worker.engine.batches.batching import TokenBatch
from worker.engine.families import loader
from worker.engine.kernels.precision import Precision
from worker.engine.scorer import PairWindow, Scorer

pytestmark = pytest.mark.slow

SHAPE = {"hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 128}
BUILDERS = {
    "bert": partial(bert, num_labels=1, **SHAPE),
    "xlm-roberta": partial(roberta, num_labels=1, **SHAPE),
    "modernbert": partial(modernbert, num_labels=1, **SHAPE),
    "llama": partial(qwen3_st, kind="llama"),
}
WINDOW = PairWindow(
    ["a fast search"] * 30, [" ".join(CORPUS)[: 14 * i] for i in range(29)] + [" ".join(CORPUS)]
)
Window = tuple[int, int]


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    ends_q: torch.Tensor,
    ends_k: torch.Tensor,
    max_q: int,
    max_k: int,
    window: Window = (-1, -1),
    enable_gqa: bool = False,
) -> torch.Tensor:
    lengths = ends_q, ends_k, max_q, max_k
    options: dict[str, Any] = {"window_size": list(window), "enable_gqa": enable_gqa}
    return varlen_attention(query, key, value, *lengths, **options)[0]


def v2_10(
    query: Any, key: Any, value: Any, cu_seq_q: Any, cu_seq_k: Any, max_q: int, max_k: int,
    is_causal: bool = False, return_aux: Any = None,
) -> torch.Tensor:  # fmt: skip
    window = (-1, 0) if is_causal else (-1, -1)
    return attend(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, window)


def v2_11(
    query: Any, key: Any, value: Any, cu_seq_q: Any, cu_seq_k: Any, max_q: int, max_k: int, *,
    return_aux: Any = None, scale: float | None = None, window_size: Window = (-1, -1),
) -> torch.Tensor:  # fmt: skip
    return attend(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, window_size)


def v2_13(
    query: Any, key: Any, value: Any, cu_seq_q: Any, cu_seq_k: Any, max_q: int, max_k: int, *,
    return_aux: Any = None, scale: float | None = None, window_size: Window = (-1, -1),
    enable_gqa: bool = False, seqused_k: Any = None, block_table: Any = None,
    num_splits: int | None = None,
) -> torch.Tensor:  # fmt: skip
    assert num_splits == 1
    return attend(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, window_size, enable_gqa)


def v2_13_on_cudnn(
    query: Any, key: Any, value: Any, cu_seq_q: Any, cu_seq_k: Any, max_q: int, max_k: int, *,
    window_size: Window = (-1, -1), num_splits: int | None = None,
) -> torch.Tensor:  # fmt: skip
    if num_splits is not None:
        raise RuntimeError("num_splits is not supported with the cuDNN backend.")
    return attend(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, window_size)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("version", [v2_10, v2_11, v2_13, v2_13_on_cudnn])
@pytest.mark.parametrize("name", BUILDERS)
def test_packed_attention_is_near_fp32(
    name: str,
    version: Callable[..., torch.Tensor],
    precision: Precision,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    folder = BUILDERS[name](tmp_path / name)
    (exact,) = Scorer.load(folder, precision="fp32").score([WINDOW])
    calls: list[int] = []

    @wraps(version)  # its signature is read
    def counted(*arguments: Any, **options: Any) -> torch.Tensor:
        calls.append(1)
        return version(*arguments, **options)

    monkeypatch.setattr(varlen, "varlen_attn", counted)
    monkeypatch.setattr(loader, "has_varlen", lambda device, dtype, head_dim: True)
    monkeypatch.setattr(TokenBatch, "filled_up", lambda self: self)  # as on CUDA
    (scores,) = Scorer.load(folder, precision=precision).score([WINDOW])
    assert calls
    bound = 0.05 * np.abs(exact.logits).max() + 0.05
    np.testing.assert_allclose(scores.logits, exact.logits, rtol=0, atol=bound)
