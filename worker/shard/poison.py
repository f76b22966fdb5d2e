"""Find by halving the few rows that break scoring: they raise, or they kill the process.

Where scoring raises, `refused_pairs` scores the halves of the window again, down to single rows.

A process that dies cannot search further. A shard that was started and not finished a few
times is run with care: each range of rows is noted in Redis before it goes to the model, and struck
out after. A note that the next start finds is the range that killed. From then on it is scored in
halves, down to the single rows. A single row gets a second chance, since something else may also
have killed the process.

A shard in which devices have failed twice is run in this way, too. A device that fails then ends
its process. It has proved itself in that process before, with a full batch without rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from rankmill.contract.plan import ShardSpec
from rankmill.devices.choice import EXIT_DEVICE_LOST
from rankmill.errors import RankmillError, is_memory_shortage
from rankmill.ledger.claims import Claims
from rankmill.logs import get_logger
from worker.engine.device.faults import DeviceFaultError, ForwardError, fault_of
from worker.engine.scorer import PairTooLargeError, PairWindow
from worker.engine.values import UnfitPair
from worker.models import AnyScorer
from worker.shard.rejects import REFUSED, TOO_LARGE

log = get_logger(__name__)

KILLS = "scoring it kills the worker"
# The message itself may quote a text, and differs from row to row.
_SEE_LOG = "the worker's log has the message"
_DEATHS_TO_REJECT = 2
_MAX_DEATHS = 100
_PLAIN_PAIR = PairWindow(["a"], ["a"])

Range = tuple[int, int]


def may_blame_rows(error: Exception) -> bool:
    """Return whether rows may be the reason for an error of the tokenizer or the forward.

    They never are where the memory is short or the device has failed.
    """
    return not (is_memory_shortage(error) or fault_of(error))


def refused_pairs(scorer: AnyScorer, pairs: PairWindow) -> dict[int, str]:
    """Return the positions of the pairs that cannot be scored even alone, with the reasons.

    There are none where even the plainest pair cannot be scored: then the model is broken.
    """
    has_prompts = pairs.prompts is not None
    if _refusal(scorer, replace(_PLAIN_PAIR, prompts=["a"] if has_prompts else None)) is not None:
        return {}
    return refused_alone(pairs, lambda some: _refusal(scorer, some))


def refused_alone(pairs: PairWindow, refusal: Callable[[PairWindow], str | None]) -> dict[int, str]:
    """Return the positions of the pairs that are refused even alone, with the reasons.

    Args:
        pairs: some of which may be refused.
        refusal: returns why pairs are refused together, or None where they are not.
    """
    ranges, refused = [(0, len(pairs.queries))], {}
    while ranges:
        start, stop = ranges.pop()
        some = pairs.between(start, stop)
        reason = refusal(some)
        if reason is None:
            continue
        if stop - start > 1:
            middle = (start + stop) // 2
            ranges += [(start, middle), (middle, stop)]
        elif refusal(some) == reason:  # and it did not fail only once
            refused[start] = reason
    return refused


def _refusal(scorer: AnyScorer, pairs: PairWindow) -> str | None:
    """Return why pairs cannot be scored, or None where they can."""
    try:
        list(scorer.score([pairs]))
    except PairTooLargeError:
        return TOO_LARGE
    except Exception as error:
        if not may_blame_rows(error):
            raise
        if isinstance(error, TimeoutError | UnfitPair):
            return refused_by(error)
        is_forward = isinstance(error, ForwardError)
        what = "its forward" if is_forward else "its tokenizer or template"
        cause = (error.__cause__ if is_forward else None) or error
        return f"{REFUSED}: {what} fails with {type(cause).__name__}; {_SEE_LOG}"
    return None


def refused_by(error: TimeoutError | UnfitPair) -> str:
    """Return the reason of a reject whose pair is the cause of an error."""
    return f"{REFUSED}: {error}"


@dataclass(frozen=True)
class Suspects:
    """The ranges of a shard's rows that have killed a process.

    Attributes:
        deaths: how often a range has, by its first row and the row behind its last.
    """

    claims: Claims
    shard: ShardSpec
    deaths: Mapping[Range, int]

    @classmethod
    def of(cls, claims: Claims, shard: ShardSpec) -> Suspects:
        """Return what earlier starts of a shard have found.

        Raises:
            RankmillError: the shard has killed too often for a few bad rows to be the reason.
        """
        suspects = cls(claims, shard, claims.note_deadly(shard.job_id, shard.shard_index))
        if suspects.n_deaths > _MAX_DEATHS:
            raise RankmillError(
                f"shard {shard.shard_index} killed its worker {suspects.n_deaths} times; is the "
                "machine's memory too small for the model?"
            )
        return suspects

    @property
    def n_deaths(self) -> int:
        """The number of deaths in any range."""
        return sum(self.deaths.values())

    def pieces(self, first: int, stop: int) -> list[Range]:
        """Return a range in pieces, none of which has killed unless it is a single row."""
        if (first, stop) not in self.deaths or stop - first == 1:
            return [(first, stop)] if stop > first else []
        middle = (first + stop) // 2
        return self.pieces(first, middle) + self.pieces(middle, stop)

    def kills(self, row: int) -> bool:
        """Return whether a row has killed often enough to be rejected."""
        return self.deaths.get((row, row + 1), 0) >= _DEATHS_TO_REJECT

    @contextmanager
    def on_trial(self, first: int, stop: int) -> Iterator[None]:
        """Note a range while it is scored, so that a process that dies leaves the note behind.

        A process whose device fails ends at once and leaves it, too. The device has proved itself
        in this very process, so that the range is the suspect.
        """
        job_id, shard_index = self.shard.job_id, self.shard.shard_index
        self.claims.set_trial(job_id, shard_index, (first, stop))
        try:
            yield
        except DeviceFaultError as error:
            log.error("device failed at rows on trial", rows=[first, stop], error=str(error))
            os._exit(EXIT_DEVICE_LOST)
        except BaseException:
            self.claims.set_trial(job_id, shard_index, None)
            raise
        self.claims.set_trial(job_id, shard_index, None)
