"""A shard's rows through the scorer: read ahead, bad rows set aside, every row counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from rankmill.contract.job import Columns, ShardSpec
from rankmill.errors import RankmillError, is_memory_shortage
from rankmill.logs import get_logger
from rankmill.output.output import Job
from rankmill.tables.pair_hash import PAIR_HASH_COLUMN, pair_hashes
from rankmill.tables.titles import scored_documents
from worker.engine.device.faults import ForwardError, fault_of
from worker.engine.scorer import PairTooLargeError, PairWindow, WindowScores
from worker.models import LoadedModel
from worker.shard.group_checks import GroupChecks
from worker.shard.ownership import OwnedRows, owned_rows
from worker.shard.poison import KILLS, Suspects
from worker.shard.reader import RowReader
from worker.shard.rejects import NOT_FINITE, REFUSED, TOO_LARGE, refusals
from worker.shard.reuse import KnownRows
from worker.shard.spill import Spill
from worker.shard.window import Window, taken

log = get_logger(__name__)

# The device waits for a shard's first window to be tokenized, so that is a small one.
_FIRST_WINDOW_PAIRS = 256

_PLAIN_PAIR = PairWindow(["a"], ["a"])

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
        reader: of the shard before, which goes on with this one where it follows.
        n_deaths: workers that died over the shard.
        n_retries: starts of it that ended with an error that passed.
    """

    model: LoadedModel
    worker: str
    window_pairs: int
    progress: Progress
    guard: Callable[[], None]
    suspects: Suspects | None = None
    scratch: str | None = None
    reader: RowReader = field(default_factory=RowReader)
    n_deaths: int = 0
    n_retries: int = 0


@dataclass
class Scored:
    """The rows of a shard that were scored, in their order, and those that could not be.

    Attributes:
        kept: the kept columns with `logit`, `n_tokens` and `truncated`.
        logits: of each of their rows.
        groups: the query group of each of their rows.
        lengths: the tokens of each of their rows.
        rejected: row number to reason.
        no_reuse: why no earlier job's score was taken although the job asks for it.
        hashed: PAIR_HASH_COLUMN, `logit`, `n_tokens` and `truncated` of all, where they are to be
            reused.
    """

    kept: Spill
    checks: GroupChecks
    logits: list[np.ndarray] = field(default_factory=list)
    groups: list[np.ndarray] = field(default_factory=list)
    lengths: list[np.ndarray] = field(default_factory=list)
    rejected: dict[int, str] = field(default_factory=dict)
    n_rows: int = 0
    n_tokens: int = 0
    n_truncated: int = 0
    n_groups: int = 0
    n_duplicates: int = 0
    n_reused: int = 0
    no_reuse: str | None = None
    hashed: Spill | None = None


def score_rows(job: Job, shard: ShardSpec, work: ShardWork, stack: ExitStack) -> Scored:
    """Score all that a shard owns; what is kept of its rows is gone when `stack` is closed.

    A row that the tokenizer or the model's forward refuses, or whose pair alone exhausts the
    device's memory, is rejected, and the shard scored again without it.

    Raises:
        InputError: as `owned_rows`, or a query names a document twice.
    """
    unfit: dict[int, str] = {}
    known = stack.enter_context(KnownRows(job, work.model.scoring))
    while True:
        waiting: deque[Window] = deque()
        scored = Scored(Spill(stack, work.scratch), GroupChecks(job))
        n_duplicates = work.model.scorer.stats.n_duplicates
        scored.no_reuse = known.refused
        scored.hashed = Spill(stack, work.scratch) if job.spec.for_reuse else None
        try:
            _score(job, shard, work, unfit, known, waiting, scored)
            scored.checks.check_documents()
            scored.n_duplicates = work.model.scorer.stats.n_duplicates - n_duplicates
            return scored
        except PairTooLargeError as error:
            unfit[waiting[0].row(error.row)] = TOO_LARGE
        except (RankmillError, MemoryError):
            raise
        except Exception as error:
            if not _may_blame_rows(error):
                raise
            found = _refused_rows(work, waiting[0], job.plan.columns) if waiting else {}
            if not found:
                raise
            log.warning("rows cannot be scored", rows=sorted(found), error=str(error))
            unfit.update(found)


def _may_blame_rows(error: Exception) -> bool:
    """Only what the tokenizer and the forward raise: devices and memory have their own reasons."""
    return not (is_memory_shortage(error) or fault_of(error))


def _refused_rows(work: ShardWork, window: Window, columns: Columns) -> dict[int, str]:
    """The rows of the window at which scoring broke off that break it alone, found by halving.

    None of them where even the plainest pair cannot be scored: then the model is broken.
    """
    if _refusal(work, _PLAIN_PAIR) is not None:
        return {}
    pairs = window.pairs(columns)
    suspects, found = [(0, len(pairs.queries))], {}
    while suspects:
        start, stop = suspects.pop()
        some = PairWindow(pairs.queries[start:stop], pairs.documents[start:stop])
        reason = _refusal(work, some)
        if reason is None:
            continue
        if stop - start > 1:
            middle = (start + stop) // 2
            suspects += [(start, middle), (middle, stop)]
        elif _refusal(work, some) == reason:  # and did not fail for once
            found[window.row(start)] = reason
    return found


def _refusal(work: ShardWork, pairs: PairWindow) -> str | None:
    """Why pairs cannot be scored, or None where they can."""
    try:
        list(work.model.scorer.score([pairs]))
    except PairTooLargeError:
        return TOO_LARGE
    except Exception as error:
        if not _may_blame_rows(error):
            raise
        if isinstance(error, TimeoutError):
            return f"{REFUSED}: {error}"
        cause = error.__cause__ if isinstance(error, ForwardError) else None
        return f"{REFUSED}: {type(cause or error).__name__}"
    return None


def _score(
    job: Job,
    shard: ShardSpec,
    work: ShardWork,
    unfit: dict[int, str],
    known: KnownRows,
    waiting: deque[Window],
    scored: Scored,
) -> None:
    """`waiting` holds the windows that the scorer has taken and not given back, oldest first."""
    columns = job.plan.columns

    def windows() -> Iterator[PairWindow]:
        for rows in _windows_of_rows(job, shard, work, known):
            scored.checks.add(rows)
            refused = refusals(rows.table, columns)
            for row, why in unfit.items():
                if rows.first_row <= row < rows.stop_row:
                    refused.setdefault(row - rows.first_row, why)
            if work.suspects and work.suspects.kills(rows.first_row):
                refused.setdefault(0, KILLS)
            scored.rejected.update({rows.first_row + at: why for at, why in refused.items()})
            waiting.append(Window.of(rows, refused, known.scores(rows.first_row, rows.stop_row)))
            yield waiting[-1].pairs(columns)

    if work.suspects is None:
        results = work.model.scorer.score(windows())
    else:
        results = _one_by_one(work, work.suspects, windows(), waiting)
    for scores in results:
        _keep(scored, waiting.popleft(), scores, columns, known)
        work.progress(scored.n_rows, scored.n_tokens)


def _windows_of_rows(
    job: Job, shard: ShardSpec, work: ShardWork, known: KnownRows
) -> Iterator[OwnedRows]:
    columns = job.plan.columns
    reading = [*columns.texts, *columns.kept]
    reading += [columns.doc_id] if columns.doc_id else []
    is_first = True
    for rows in owned_rows(job, shard, reading, known.stretch * work.window_pairs, work.reader):
        middle = min(rows.first_row + known.stretch * _FIRST_WINDOW_PAIRS, rows.stop_row)
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


def _keep(
    scored: Scored, window: Window, new: WindowScores, columns: Columns, known: KnownRows
) -> None:
    rows, good, scores = window.rows, window.good, window.all_scores(new)
    finite = np.isfinite(scores.logits)
    not_finite = NOT_FINITE if new.no_rescue is None else f"{NOT_FINITE}, and {new.no_rescue}"
    for at in good[~finite].tolist():
        scored.rejected[rows.first_row + at] = not_finite
    results = pa.table(
        {
            "logit": scores.logits[finite],
            "n_tokens": scores.n_tokens[finite],
            "truncated": scores.truncated[finite],
        }
    )
    kept = taken(rows.table.select(list(columns.kept)), good[finite])
    kept = kept.rename_columns(list(columns.kept.values()))
    for name in results.column_names:
        kept = kept.append_column(name, results[name])
    scored.kept.add(kept)
    if scored.hashed is not None:
        hashes = known.hashes(rows.first_row, rows.stop_row)
        if hashes is None:
            documents = scored_documents(rows.table, columns)
            hashes = pair_hashes(rows.table[columns.query], documents)
        hashes = hashes.take(pa.array(good[finite]))
        scored.hashed.add(results.add_column(0, PAIR_HASH_COLUMN, hashes))
    scored.logits.append(scores.logits[finite])
    scored.groups.append(rows.groups[good[finite]])
    scored.lengths.append(scores.n_tokens[finite])
    scored.n_rows += rows.table.num_rows
    scored.n_tokens += int(scores.n_tokens.sum())
    scored.n_truncated += int(scores.truncated[finite].sum())
    scored.n_groups = int(rows.groups[-1]) + 1
    scored.n_reused += len(window.known)
