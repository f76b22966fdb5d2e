"""Rows that kill the process that scores them are found by halving, and rejected.

A shard that was started and not finished a few times is run with care: the range of rows that goes
to the model is noted in Redis before and struck out after. A note found at the next start is the
range that killed; from then on it is scored in halves, down to the single rows that do it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rankmill.errors import RankmillError
from rankmill.ledger import Ledger
from rankmill.spec import ShardSpec

KILLS = "scoring it kills the worker"
_MAX_DEATHS = 100

Range = tuple[int, int]


@dataclass(frozen=True)
class Suspects:
    """The ranges of a shard's rows, first to one behind last, that have killed so far."""

    ledger: Ledger
    shard: ShardSpec
    deadly: frozenset[Range]

    @classmethod
    def of(cls, ledger: Ledger, shard: ShardSpec) -> Suspects:
        """Take up what earlier starts have found out.

        Raises:
            RankmillError: the shard has killed too often for a few bad rows to be the reason.
        """
        deadly = ledger.note_deadly(shard.job_id, shard.shard_index)
        if len(deadly) > _MAX_DEATHS:
            raise RankmillError(
                f"shard {shard.shard_index} killed its worker {len(deadly)} times; is the "
                "machine's memory too small for the model?"
            )
        return cls(ledger, shard, deadly)

    def pieces(self, first: int, stop: int) -> list[Range]:
        """The range in pieces none of which has killed, but for those of a single row."""
        if (first, stop) not in self.deadly or stop - first == 1:
            return [(first, stop)] if stop > first else []
        middle = (first + stop) // 2
        return self.pieces(first, middle) + self.pieces(middle, stop)

    def kills(self, row: int) -> bool:
        return (row, row + 1) in self.deadly

    @contextmanager
    def on_trial(self, first: int, stop: int) -> Iterator[None]:
        """Note a range while it is scored; a process that dies leaves the note behind."""
        self.ledger.set_trial(self.shard.job_id, self.shard.shard_index, (first, stop))
        yield
        self.ledger.set_trial(self.shard.job_id, self.shard.shard_index, None)
