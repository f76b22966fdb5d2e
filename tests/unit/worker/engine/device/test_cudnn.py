"""No forward uses cuDNN, and the process has it as before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from tests.support.models import zoo
from worker.engine.scorer import PairWindow, Scorer


@pytest.fixture
def seen() -> Iterator[set[tuple[bool, bool]]]:
    """Collect the states of cuDNN and of its attention in which a module was called."""
    states: set[tuple[bool, bool]] = set()
    hook = register_module_forward_pre_hook(lambda *_: states.add(state()))
    yield states
    hook.remove()


def state() -> tuple[bool, bool]:
    return torch.backends.cudnn.enabled, torch.backends.cuda.cudnn_sdp_enabled()


def test_forwards_run_without_cudnn(seen: set[tuple[bool, bool]], tmp_path: Path) -> None:
    folder = zoo.bert_like(tmp_path / "model", kind="megatron-bert")
    scorer = Scorer.load(folder, precision="fp32")
    assert scorer.info.path == "padded"  # transformers' own modules
    assert seen == {(False, False)} and state() == (True, True)
    seen.clear()
    list(scorer.score([PairWindow(["a"], ["b"])]))
    assert seen == {(False, False)} and state() == (True, True)
