"""The engine's input for a sample's rows: its pairs, or the passages of its documents."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from worker.engine.values import PairWindow, UnfitPair
from worker.shard.poison import refused_alone, refused_by

if TYPE_CHECKING:
    from worker.engine.batches.pairs import EncodedWindow
    from worker.engine.encoding.encoder import Encoder
    from worker.engine.passages.planning import PassagePlanner

_Value = TypeVar("_Value")


@dataclass
class SampleTokens:
    """A sample's texts as they are scored, with an entry for each of its rows.

    Attributes:
        windows: the pairs that the model scores.
        encoded: the same, encoded.
        n_tokens: tokens of a row, in all of its passages.
        truncated: whether the model does not get all of its text.
        n_passages: its passages; 0 where its query leaves no room for one.
        n_shared: of its tokens, those in prefixes that all pairs of its query share.
    """

    windows: list[PairWindow] = field(default_factory=list)
    encoded: list[EncodedWindow] = field(default_factory=list)
    n_tokens: list[int] = field(default_factory=list)
    truncated: list[bool] = field(default_factory=list)
    n_passages: list[int] = field(default_factory=list)
    n_shared: list[int] = field(default_factory=list)

    @property
    def without_room(self) -> list[int]:
        """The rows whose query leaves no room for a passage."""
        return [at for at, n_passages in enumerate(self.n_passages) if not n_passages]

    def scored(self, values: list[_Value]) -> list[_Value]:
        """Return the values of the rows that get a score."""
        return [
            value for value, n_passages in zip(values, self.n_passages, strict=True) if n_passages
        ]

    @classmethod
    def of_pairs(cls, windows: list[PairWindow], encoder: Encoder) -> SampleTokens:
        """Encode whole pairs."""
        found = cls(windows, [encoder.encode(window) for window in windows])
        for each in found.encoded:
            found.n_tokens += each.lengths[each.pair_of_row].tolist()
            found.truncated += each.truncated[each.pair_of_row].tolist()
            found.n_shared += each.n_shared[each.pair_of_row].tolist()
        found.n_passages = [1] * len(found.n_tokens)
        return found

    @classmethod
    def of_passages(cls, windows: list[PairWindow], planner: PassagePlanner) -> SampleTokens:
        """Cut the texts as a job would, and encode their passages."""
        found = cls()
        for window in windows:
            pieces = list(planner.pieces(window))
            row = pieces[-1].pair_of_row
            found.windows += [piece.passages for piece in pieces]
            found.encoded += [piece.encoded for piece in pieces]
            found.n_tokens += np.concatenate([piece.n_tokens for piece in pieces])[row].tolist()
            found.truncated += np.concatenate([piece.truncated for piece in pieces])[row].tolist()
            found.n_passages += np.concatenate([piece.n_passages for piece in pieces])[row].tolist()
            found.n_shared += np.concatenate([piece.n_shared for piece in pieces])[row].tolist()
        return found


def of_fitting_pairs(
    windows: list[PairWindow], sampled: Callable[[list[PairWindow]], SampleTokens]
) -> tuple[SampleTokens, dict[int, str]]:
    """Return the tokens of the pairs that can be encoded, and the reasons of the others by row."""
    try:
        return sampled(windows), {}
    except UnfitPair:
        pass  # a job rejects such a pair

    def refusal(some: PairWindow) -> str | None:
        try:
            sampled([some])
        except UnfitPair as error:
            return refused_by(error)
        return None

    fitting: list[PairWindow] = []
    unfit: dict[int, str] = {}
    n_rows = 0
    for window in windows:
        refused = refused_alone(window, refusal)
        unfit |= {n_rows + at: reason for at, reason in refused.items()}
        n_rows += len(window.queries)
        if len(refused) < len(window.queries):
            fitting.append(_without(window, refused))
    return sampled(fitting), unfit


def _without(window: PairWindow, places: Collection[int]) -> PairWindow:
    """Return a window without the pairs at some places."""
    kept = [at for at in range(len(window.queries)) if at not in places]
    prompts, titles = window.prompts, window.title_chars
    return PairWindow(
        [window.queries[at] for at in kept],
        [window.documents[at] for at in kept],
        None if prompts is None else [prompts[at] for at in kept],
        None if titles is None else [titles[at] for at in kept],
    )
