"""The input and output of the engine: plain values without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PairWindow:
    """Pairs to score: `queries[i]` with `documents[i]`.

    The engine sorts by length and finds equal pairs within a window. A few thousand pairs are
    enough for full batches.

    Raises:
        ValueError: the lengths differ.
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
    """The scores of a window, one entry for each pair in its order.

    Attributes:
        logits: float32 (n,), the model's raw output; of two labels the log-odds of the second.
        n_tokens: int32 (n,), tokens of the pair in the model, special tokens included.
        truncated: bool (n,), whether text was truncated to `max_length`.
        no_rescue: the reason why non-finite logits were not computed again in fp32, if so.
    """

    logits: np.ndarray
    n_tokens: np.ndarray
    truncated: np.ndarray
    no_rescue: str | None = None
