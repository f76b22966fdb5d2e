"""`rankmill doctor` names each GPU with what NVML knows of it."""

from __future__ import annotations

import pytest

from producer.cluster import local
from producer.doctor.machine import check_machine
from rankmill.devices.choice import Choice
from rankmill.devices.nvml import Card
from rankmill.settings import Settings


def test_gpus_are_described(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card("GPU-1", "NVIDIA H100", total_bytes=80 * 2**30, used_bytes=2**30, temperature_c=40)
    about = "driver 580.95.05, CUDA 13.0"
    chosen = Choice(("0", "1"), cards=(card, None), about=about)
    monkeypatch.setattr(local, "choose", lambda wanted: chosen)
    found = {each.name: each for each in check_machine(Settings())}
    assert found["devices"].message.startswith(
        f"cuda0 (NVIDIA H100, 1.0 of 80.0 GiB used, 40 C, {about}), cuda1 ({about}); "
    )
