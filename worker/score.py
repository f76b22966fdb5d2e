"""A shard's rows through the scorer: read ahead, bad rows set aside, every row counted."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from rankmill.errors import RankmillError
from rankmill.output import Job
from rankmill.spec import Columns, ShardSpec
from worker.duplicates import DocumentIds
from worker.engine.scorer import PairTooLargeError, PairWindow, WindowScores
from worker.models import LoadedModel
from worker.queries import QueryKeys
from worker.rejects import NOT_FINITE, REFUSED, TOO_LARGE, refusals
from worker.rows import OwnedRows, owned_rows
from worker.spill import Spill
from worker.suspects import KILLS, Suspects

log = logging.getLogger(__name__)

# The device waits for a shard's first window to be tokenized, so that is a small one.
_FIRST_WINDOW_PAIRS = 256

# Told after each window: pairs and tokens of the shard scored so far.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ShardWork:
    """What running a shard needs beside the shard itself.

    Attributes:
        progress: told after each window.
        guard: called before anything is published; raises where the claim is lost.
        suspects: set for a shard that has killed workers, which is then scored with care.
        scratch: a folder on local disk for rows that wait for their rank, or the system's.
    """

    model: LoadedModel
    worker: str
    window_pairs: int
    progress: Progress
    guard: Callable[[], None]
    suspects: Suspects | None = None
    scratch: str | None = None


@dataclass
class Scored:
    """The rows of a shard that were scored, in their order, and those that could not be.

    Attributes:
        kept: the kept columns with `logit`, `n_tokens` and `truncated`.
        logits: of each of their rows.
        groups: the query group of each of their rows.
        rejected: row number to reason.
    """

    kept: Spill
    doc_ids: DocumentIds
    queries: QueryKeys
    logits: list[np.ndarray] = field(default_factory=list)
    groups: list[np.ndarray] = field(default_factory=list)
    rejected: dict[int, str] = field(default_factory=dict)
    n_rows: int = 0
    n_tokens: int = 0
    n_truncated: int = 0
    n_groups: int = 0


@dataclass(frozen=True)
class Window:
    """Rows on their way through the scorer; `good` are the positions of those it gets."""

    rows: OwnedRows
    good: np.ndarray

    @classmethod
    def of(cls, rows: OwnedRows, refused: Iterable[int]) -> Window:
        return cls(rows, np.delete(np.arange(rows.table.num_rows), list(refused)))

    def row(self, at: int) -> int:
        """The number of the row of the pair that the scorer knows as `at`."""
        return self.rows.first_row + int(self.good[at])

    def pairs(self, columns: Columns) -> PairWindow:
        texts = self.rows.table.take(self.good)
        return PairWindow(texts[columns.query].to_pylist(), texts[columns.document].to_pylist())


def score_rows(job: Job, shard: ShardSpec, work: ShardWork, stack: ExitStack) -> Scored:
    """Score all that a shard owns; what is kept of its rows is gone when `stack` is closed.

    A row that the tokenizer refuses, or whose pair alone exhausts the device's memory, is rejected,
    and the shard scored again without it.

    Raises:
        InputError: as `owned_rows`, or a query names a document twice.
    """
    unfit: dict[int, str] = {}
    while True:
        waiting: deque[Window] = deque()
        scored = Scored(Spill(stack, work.scratch), DocumentIds(job), QueryKeys(job))
        try:
            _score(job, shard, work, unfit, waiting, scored)
            scored.doc_ids.check(shard.start_row)
            return scored
        except PairTooLargeError as error:
            unfit[waiting[0].row(error.row)] = TOO_LARGE
        except (RankmillError, MemoryError):
            raise
        except Exception as error:
            found = _refused_rows(work, waiting, job.plan.columns)
            if not found:
                raise
            log.warning("shard %d: rows %s: %s", shard.shard_index, sorted(found), error)
            unfit.update(found)


def _refused_rows(work: ShardWork, waiting: deque[Window], columns: Columns) -> dict[int, str]:
    """The rows of the window at which scoring broke off that break it alone; none if all do."""
    if not waiting:
        return {}
    window = waiting[0]
    pairs = window.pairs(columns)
    found = {}
    for at, pair in enumerate(zip(pairs.queries, pairs.documents, strict=True)):
        try:
            list(work.model.scorer.score([PairWindow([pair[0]], [pair[1]])]))
        except (PairTooLargeError, MemoryError):
            pass
        except Exception as error:
            found[window.row(at)] = f"{REFUSED}: {type(error).__name__}"
    return found if len(found) < len(pairs.queries) else {}


def _score(
    job: Job,
    shard: ShardSpec,
    work: ShardWork,
    unfit: dict[int, str],
    waiting: deque[Window],
    scored: Scored,
) -> None:
    """`waiting` holds the windows that the scorer has taken and not given back, oldest first."""
    columns = job.plan.columns

    def windows() -> Iterator[PairWindow]:
        for rows in _windows_of_rows(job, shard, work):
            scored.doc_ids.add(rows)
            scored.queries.add(rows)
            refused = refusals(rows.table, columns)
            for row in unfit.keys() & set(range(rows.first_row, rows.stop_row)):
                refused.setdefault(row - rows.first_row, unfit[row])
            if work.suspects and work.suspects.kills(rows.first_row):
                refused.setdefault(0, KILLS)
            scored.rejected.update({rows.first_row + at: why for at, why in refused.items()})
            waiting.append(Window.of(rows, refused))
            yield waiting[-1].pairs(columns)

    if work.suspects is None:
        results = work.model.scorer.score(windows())
    else:
        results = _one_by_one(work, work.suspects, windows(), waiting)
    for scores in results:
        _keep(scored, waiting.popleft(), scores, columns)
        work.progress(scored.n_rows, scored.n_tokens)


def _windows_of_rows(job: Job, shard: ShardSpec, work: ShardWork) -> Iterator[OwnedRows]:
    columns = job.plan.columns
    reading = [columns.query, columns.document, *columns.kept]
    reading += [columns.doc_id] if columns.doc_id else []
    is_first = True
    for rows in owned_rows(job, shard, reading, work.window_pairs):
        middle = min(rows.first_row + _FIRST_WINDOW_PAIRS, rows.stop_row)
        cuts = (
            [(rows.first_row, middle), (middle, rows.stop_row)]
            if is_first
            else [(rows.first_row, rows.stop_row)]
        )
        is_first = False
        for cut in cuts:
            pieces = work.suspects.pieces(*cut) if work.suspects else [cut]
            yield from (rows.between(*piece) for piece in pieces if piece[0] < piece[1])


def _one_by_one(
    work: ShardWork, suspects: Suspects, windows: Iterator[PairWindow], waiting: deque[Window]
) -> Iterator[WindowScores]:
    """Score window after window, nothing ahead, each on trial while it is with the model."""
    for window in windows:
        rows = waiting[-1].rows
        with suspects.on_trial(rows.first_row, rows.stop_row):
            yield from work.model.scorer.score([window])


def _keep(scored: Scored, window: Window, scores: WindowScores, columns: Columns) -> None:
    rows, good = window.rows, window.good
    finite = np.isfinite(scores.logits)
    for at in good[~finite].tolist():
        scored.rejected[rows.first_row + at] = NOT_FINITE
    kept = rows.table.select(list(columns.kept)).take(good[finite])
    kept = kept.rename_columns(list(columns.kept.values()))
    results = {
        "logit": scores.logits[finite],
        "n_tokens": scores.n_tokens[finite],
        "truncated": scores.truncated[finite],
    }
    for name, values in results.items():
        kept = kept.append_column(name, pa.array(values))
    scored.kept.add(kept)
    scored.logits.append(scores.logits[finite])
    scored.groups.append(rows.groups[good[finite]])
    scored.n_rows += rows.table.num_rows
    scored.n_tokens += int(scores.n_tokens.sum())
    scored.n_truncated += int(scores.truncated[finite].sum())
    scored.n_groups = int(rows.groups[-1]) + 1
