"""A forward that fails on request, like a device without memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from worker.engine.batches.batching import TokenBatch


def out_of_memory(text: str = "CUDA out of memory. Tried to allocate 20.00 MiB") -> Exception:
    return torch.OutOfMemoryError(text)


class Failing:
    """A forward that fails by the number of the call and its tokens."""

    def __init__(self, inner: Any, fail: Callable[[int, int], Exception | None]) -> None:
        self.inner, self.fail, self.n_calls = inner, fail, 0
        self.sizes: list[int] = []

    def forward(self, batch: TokenBatch) -> torch.Tensor:
        self.n_calls += 1
        error = self.fail(self.n_calls, len(batch.ids))
        if error is not None:
            raise error
        self.sizes.append(len(batch.ids))
        logits: torch.Tensor = self.inner.forward(batch)
        return logits
