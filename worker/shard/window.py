"""Some rows of a shard on their way through the scorer, which gets those that need a score."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rankmill.contract.job import Columns
from rankmill.contract.reuse import unpack
from rankmill.tables.titles import scored_documents
from worker.arrow_text import Texts
from worker.engine.scorer import PairWindow, WindowScores
from worker.shard.ownership import OwnedRows


def taken(table: pa.Table, positions: np.ndarray) -> pa.Table:
    """The rows at rising positions; most often that is all of them."""
    return table if len(positions) == table.num_rows else table.take(positions)


@dataclass(frozen=True)
class Window:
    """
    Attributes:
        good: positions of the rows that get a score.
        is_new: bool, which of those the scorer gets.
        known: uint64, the packed scores of the others.
    """

    rows: OwnedRows
    good: np.ndarray
    is_new: np.ndarray
    known: np.ndarray

    @classmethod
    def of(cls, rows: OwnedRows, refused: Iterable[int], known: np.ndarray) -> Window:
        """
        Args:
            known: uint64, the packed score of each row, or 0.
        """
        good = np.delete(np.arange(rows.table.num_rows), list(refused))
        is_new = known[good] == 0
        return cls(rows, good, is_new, known[good][~is_new])

    def row(self, at: int) -> int:
        """The number of the row of the pair that the scorer knows as `at`."""
        return self.rows.first_row + int(self.good[self.is_new][at])

    def pairs(self, columns: Columns) -> PairWindow:
        """What the scorer gets."""
        texts = taken(self.rows.table.select(columns.texts), self.good[self.is_new])
        return PairWindow(Texts(texts[columns.query]), Texts(scored_documents(texts, columns)))

    def all_scores(self, new: WindowScores) -> WindowScores:
        """The scores of all good rows, from what the scorer has given."""
        if not len(self.known):
            return new
        logits, n_tokens, truncated = unpack(self.known)
        return WindowScores(
            logits=self._merged(new.logits, logits),
            n_tokens=self._merged(new.n_tokens, n_tokens),
            truncated=self._merged(new.truncated, truncated),
        )

    def _merged(self, new: np.ndarray, known: np.ndarray) -> np.ndarray:
        merged = np.empty(len(self.good), known.dtype)
        merged[self.is_new], merged[~self.is_new] = new, known
        return merged
