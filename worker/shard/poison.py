"""Rows that kill the process that scores them are found by halving, and rejected.

A shard that was started and not finished a few times is run with care: the range of rows that goes
to the model is noted in Redis before and struck out after. A note found at the next start is the
range that killed; from then on it is scored in halves, down to the single rows that do it. A single
row is given a second chance, since a process may also be killed by somebody else.

A shard in which devices have failed twice is run so too, and a device that fails then ends its
process. Before, it has proved itself there with a full batch of no rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from rankmill.contract.job import ShardSpec
from rankmill.devices.choice import EXIT_DEVICE_LOST
from rankmill.errors import RankmillError
from rankmill.ledger.claims import Claims
from rankmill.logs import get_logger
from worker.engine.device.faults import DeviceFaultError

log = get_logger(__name__)

KILLS = "scoring it kills the worker"
_DEATHS_TO_REJECT = 2
_MAX_DEATHS = 100

Range = tuple[int, int]


@dataclass(frozen=True)
class Suspects:
    """How often which ranges of a shard's rows, first to one behind last, have killed."""

    claims: Claims
    shard: ShardSpec
    deaths: Mapping[Range, int]

    @classmethod
    def of(cls, claims: Claims, shard: ShardSpec) -> Suspects:
        """Take up what earlier starts have found out.

        Raises:
            RankmillError: the shard has killed too often for a few bad rows to be the reason.
        """
        found = cls(claims, shard, claims.note_deadly(shard.job_id, shard.shard_index))
        if found.n_deaths > _MAX_DEATHS:
            raise RankmillError(
                f"shard {shard.shard_index} killed its worker {found.n_deaths} times; is the "
                "machine's memory too small for the model?"
            )
        return found

    @property
    def n_deaths(self) -> int:
        return sum(self.deaths.values())

    def pieces(self, first: int, stop: int) -> list[Range]:
        """The range in pieces none of which has killed, but for those of a single row."""
        if (first, stop) not in self.deaths or stop - first == 1:
            return [(first, stop)] if stop > first else []
        middle = (first + stop) // 2
        return self.pieces(first, middle) + self.pieces(middle, stop)

    def kills(self, row: int) -> bool:
        return self.deaths.get((row, row + 1), 0) >= _DEATHS_TO_REJECT

    @contextmanager
    def on_trial(self, first: int, stop: int) -> Iterator[None]:
        """Note a range while it is scored; only a process that dies leaves the note behind.

        So does one whose device fails: it dies at once. The device has proved itself in this very
        process, so that the range is the suspect.
        """
        self.claims.set_trial(self.shard.job_id, self.shard.shard_index, (first, stop))
        try:
            yield
        except DeviceFaultError as error:
            log.error("the device failed at rows on trial", rows=[first, stop], error=str(error))
            os._exit(EXIT_DEVICE_LOST)
        except BaseException:
            self._acquit()
            raise
        self._acquit()

    def _acquit(self) -> None:
        self.claims.set_trial(self.shard.job_id, self.shard.shard_index, None)
