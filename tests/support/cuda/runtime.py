"""The functions of `torch.cuda` that the engine calls, for the devices of a `Card`."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import pytest
import torch

from tests.support.cuda.card import Card

GIB = 2**30
CAPABILITY = (9, 0)


def install(
    monkeypatch: pytest.MonkeyPatch, card: Card, *, capability: tuple[int, int] = CAPABILITY
) -> None:
    """Let `torch.cuda` answer for a card until the test ends."""

    class Device:
        def __init__(self, device: Any) -> None:
            self._index = card.device(device).index

        def __enter__(self) -> None:
            self._before, card.current = card.current, self._index

        def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
            card.current = self._before

    class Event:
        """An event of the device that is current when it is recorded."""

        def __init__(self, enable_timing: bool = False, **_: Any) -> None:
            self.device = card.current
            self.at = 0

        def record(self, stream: None = None) -> None:
            # An event belongs to the first device that uses it.
            assert self.device == card.current, "an event of another device"
            self.at = card.queues[card.current].n_launched

        def synchronize(self) -> None:
            queue = card.queues[self.device]
            card.n_ahead.append(queue.n_launched - self.at)
            queue.wait(self.at)

        def query(self) -> bool:
            return card.queues[self.device].n_done >= self.at

        def elapsed_time(self, other: Event) -> float:
            assert other.query(), "the event has not happened yet"
            return float(other.at - self.at)

    def synchronize(device: Any = None) -> None:
        card.waits.append("synchronize")
        card.queues[card.device(device or "cuda").index].wait()

    def allocated(device: Any = None) -> int:
        return card.n_bytes[card.device(device or "cuda").index]

    answers: dict[str, Any] = {
        "device": Device,
        "Event": Event,
        "synchronize": synchronize,
        "is_available": lambda: True,
        "device_count": lambda: len(card.queues),
        "current_device": lambda: card.current,
        "get_device_capability": lambda device=None: capability,
        "empty_cache": lambda: None,
        "mem_get_info": lambda device=None: (40 * GIB, 80 * GIB),
        "memory_allocated": allocated,
        "max_memory_allocated": allocated,
        "memory_reserved": allocated,
        "reset_peak_memory_stats": lambda device=None: None,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, answer)
