"""What goes into the engine and what comes out: plain values, no model in sight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PairWindow:
    """Some pairs to score: `queries[i]` with `documents[i]`; equal lengths.

    A window is also what the engine sorts by length and looks for equal pairs in: a few thousand
    pairs are enough to leave nothing on the table.
    """

    queries: Sequence[str]
    documents: Sequence[str]

    def __post_init__(self) -> None:
        if len(self.queries) != len(self.documents):
            raise ValueError(
                f"a window pairs each query with one document, "
                f"not {len(self.queries)} with {len(self.documents)}"
            )


@dataclass(frozen=True)
class WindowScores:
    """One entry a pair of the window, in its order.

    Attributes:
        logits: float32 (n,), the model's raw output; for two labels the log-odds of the second.
        n_tokens: int32 (n,), what the model saw, special tokens included.
        truncated: bool (n,), whether text was cut to fit `max_length`.
        no_rescue: why logits that are not finite were not computed again in fp32.
    """

    logits: np.ndarray
    n_tokens: np.ndarray
    truncated: np.ndarray
    no_rescue: str | None = None
