"""The input and output of the engine: plain values without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


class UnfitPair(ValueError):
    """A pair cannot become an input; the message says why and what to do, without a text."""


@dataclass(frozen=True)
class PairWindow:
    """Pairs to score: `queries[i]` with `documents[i]`, and maybe a prompt of their own.

    Without a prompt, or where it is None, a pair has that of the model's recipe.

    `title_chars` has the characters at the begin of each document that every passage of it repeats.

    The engine sorts by length and finds equal pairs within a window. A few thousand pairs are
    enough for full batches.

    Raises:
        ValueError: the lengths differ.
    """

    queries: Sequence[str]
    documents: Sequence[str]
    prompts: Sequence[str | None] | None = None
    title_chars: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if len(self.queries) != len(self.documents):
            raise ValueError(
                f"a window pairs each query with one document, "
                f"not {len(self.queries)} with {len(self.documents)}"
            )

    def between(self, start: int, stop: int) -> PairWindow:
        """Return some consecutive pairs."""
        prompts = None if self.prompts is None else self.prompts[start:stop]
        title_chars = None if self.title_chars is None else self.title_chars[start:stop]
        return PairWindow(
            self.queries[start:stop], self.documents[start:stop], prompts, title_chars
        )


@dataclass(frozen=True)
class Passages:
    """The passages of some documents, an entry for each document.

    Attributes:
        n_passages: int32 (n,), the passages that were scored.
        starts: int32 (n,), the first character of the passage with the highest logit.
        stops: int32 (n,), the character behind its last one.
    """

    n_passages: np.ndarray
    starts: np.ndarray
    stops: np.ndarray

    def take(self, rows: np.ndarray) -> Passages:
        """Return those of some documents, by their positions or by a mask."""
        return Passages(self.n_passages[rows], self.starts[rows], self.stops[rows])


@dataclass(frozen=True)
class WindowScores:
    """The scores of a window, one entry for each pair in its order.

    Attributes:
        logits: float32 (n,), the model's raw output; of two labels the log-odds of the second.
        n_tokens: int32 (n,), tokens of the pair in the model, special tokens included.
        truncated: bool (n,), whether the model did not get all of the text.
        no_rescue: the reason why non-finite logits were not computed again in fp32, if so.
        passages: the passages of the documents, if they were scored in passages.
        refused: position of a pair without a score to the reason, where more is known than that
            its logit is not finite.
    """

    logits: np.ndarray
    n_tokens: np.ndarray
    truncated: np.ndarray
    no_rescue: str | None = None
    passages: Passages | None = None
    refused: dict[int, str] = field(default_factory=dict)
