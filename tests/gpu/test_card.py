"""On a CUDA device NVML describes the card that torch uses, and the arithmetic of memory holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rankmill.devices.nvml import read_card, read_cards
from tests.support.models.checkpoints import bert
from worker.engine.scorer import Scorer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")


def test_nvml_describes_the_device_of_torch() -> None:
    pytest.importorskip("pynvml")
    answer = read_cards()
    assert answer.failure is None and answer.driver and answer.cuda
    (card,) = read_card(str(torch.cuda.get_device_properties(0).uuid)).cards
    assert card.failure is None and card.total_bytes and card.used_bytes
    total = torch.cuda.mem_get_info(0)[1]
    assert abs(card.total_bytes - total) < 0.1 * total
    assert (card.name or "").startswith(torch.cuda.get_device_name(0).split(" MIG")[0])


def test_weights_take_the_memory_that_arithmetic_says(tmp_path: Path) -> None:
    pytest.importorskip("pydantic")
    from worker.fit import Room, Size, fitting_tokens

    sizes = {"hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048}
    folder = bert(tmp_path / "model", num_labels=1, num_hidden_layers=8, **sizes)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    scorer = Scorer.load(folder, device="cuda", precision="fp32")
    size = Size.of(folder)
    taken = torch.cuda.memory_allocated() - before
    assert abs(taken - size.weights_bytes("fp32")) < 0.1 * taken
    assert fitting_tokens(size, "fp32", Room.of("cuda")) >= 512
    del scorer
