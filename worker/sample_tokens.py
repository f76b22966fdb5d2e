"""What the engine gets for a sample's rows: its pairs, or the passages of its documents."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from worker.engine.values import PairWindow

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
    """

    windows: list[PairWindow] = field(default_factory=list)
    encoded: list[EncodedWindow] = field(default_factory=list)
    n_tokens: list[int] = field(default_factory=list)
    truncated: list[bool] = field(default_factory=list)
    n_passages: list[int] = field(default_factory=list)

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
        return found
