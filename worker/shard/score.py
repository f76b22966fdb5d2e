"""Put a shard's rows through the scorer in windows, set bad rows aside and count every row."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from rankmill.contract.plan import PASSAGE_COLUMNS, Columns, ShardSpec
from rankmill.contract.reuse import unpack
from rankmill.errors import RankmillError
from rankmill.logs import get_logger
from rankmill.output.output import Job
from rankmill.tables.first_stage import first_column, first_scores
from rankmill.tables.hashed_pairs import hashed_pairs
from rankmill.tables.pair_hash import PAIR_HASH_COLUMN
from rankmill.tables.titles import scored_documents, title_lengths
from worker.arrow_text import Texts, prompts_of
from worker.engine.scorer import PairTooLargeError, PairWindow, WindowScores
from worker.engine.values import Passages
from worker.models import LoadedModel
from worker.shard.group_checks import GroupChecks
from worker.shard.poison import KILLS, Suspects, may_blame_rows, refused_pairs
from worker.shard.reader import OwnedRows, RowReader, owned_rows
from worker.shard.rejects import NOT_FINITE, TOO_LARGE, refusals
from worker.shard.reuse import KnownRows
from worker.shard.spill import Spill

log = get_logger(__name__)

# The device waits for a shard's first window to be tokenized, so that is a small one.
_FIRST_WINDOW_PAIRS = 256
# The attributes of Passages in the order of PASSAGE_COLUMNS.
_PASSAGE_PARTS = ("n_passages", "starts", "stops")

# Called after each window with the pairs and tokens of the shard scored so far.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ShardWork:
    """The tools and limits of a worker for running shards.

    Attributes:
        worker: the worker's name, for the shard report.
        window_pairs: pairs that go to the scorer at a time.
        progress: called after each window.
        guard: called before anything is published; raises where the claim is lost.
        suspects: set for a shard that has killed workers, which is then scored with care.
        scratch: a folder on local disk for rows that wait for their rank, or None for the system's.
        reader: the reader of the shard before, which goes on where this shard follows it.
        n_deaths: workers that died over the shard.
        n_retries: earlier starts of the shard that ended with a transient error.
    """

    model: LoadedModel
    worker: str
    window_pairs: int
    progress: Progress = lambda *_: None
    guard: Callable[[], None] = lambda: None
    suspects: Suspects | None = None
    scratch: str | None = None
    reader: RowReader = field(default_factory=RowReader)
    n_deaths: int = 0
    n_retries: int = 0


@dataclass
class Scored:
    """The rows of a shard that were scored, in input order, and those that were rejected.

    Attributes:
        kept: the kept columns with `logit`, `n_tokens` and `truncated`, and PASSAGE_COLUMNS where
            documents are scored in passages.
        checks: what the shard's query groups are checked by.
        hashed: the columns of `saved_schema`, where a later job may reuse them.
        no_reuse: why no earlier job's score was taken although the job asks for it.
        logits: float32, a piece for each window, of the rows of `kept`.
        groups: int64, the query groups of these rows.
        lengths: int32, the tokens of these rows, or of their passages on average.
        rows: int64, the numbers of these rows.
        truncated: bool, whether the texts of these rows were cut.
        first_scores: float64, the first stage's scores of these rows, where the input has them.
        rejected: row number to reason.
    """

    kept: Spill
    checks: GroupChecks
    hashed: Spill | None
    no_reuse: str | None
    logits: list[np.ndarray] = field(default_factory=list)
    groups: list[np.ndarray] = field(default_factory=list)
    lengths: list[np.ndarray] = field(default_factory=list)
    rows: list[np.ndarray] = field(default_factory=list)
    truncated: list[np.ndarray] = field(default_factory=list)
    first_scores: list[np.ndarray] = field(default_factory=list)
    rejected: dict[int, str] = field(default_factory=dict)
    n_rows: int = 0
    n_tokens: int = 0
    n_truncated: int = 0
    n_groups: int = 0
    n_duplicates: int = 0
    n_reused: int = 0


def score_rows(job: Job, shard: ShardSpec, work: ShardWork, stack: ExitStack) -> Scored:
    """Score all rows that a shard owns; the files that hold them go when `stack` is closed.

    A row is rejected where the tokenizer or the model's forward refuses it, or its pair alone
    exhausts the device's memory. The shard is then scored again without it.

    Raises:
        InputError: as `owned_rows`, or a query names a document twice.
    """
    unfit: dict[int, str] = {}
    known = stack.enter_context(KnownRows(job, work.model.scoring))
    while True:
        attempt = _Attempt(job, shard, work, known, unfit, stack)
        try:
            return attempt.run()
        except PairTooLargeError as error:
            unfit[attempt.waiting[0].row(error.row)] = TOO_LARGE
        except (RankmillError, MemoryError):
            raise
        except Exception as error:
            if not may_blame_rows(error) or not attempt.waiting:
                raise
            window = attempt.waiting[0]
            refused = refused_pairs(work.model.scorer, window.pairs(job.plan.columns))
            if not refused:
                raise
            unfit.update({window.row(at): reason for at, reason in refused.items()})
            rows = sorted(map(window.row, refused))
            log.warning("rows cannot be scored", rows=rows, error=str(error))


@dataclass(frozen=True)
class Window:
    """Some rows of a shard on their way through the scorer, which gets those that need a score.

    Attributes:
        rows: all of the rows.
        good: int64 (n,), the positions of the rows that get a score.
        is_new: bool (n,), whether the scorer gets the row; an earlier job's score is known else.
        known: the records of the others, of `reuse.known_type`.
    """

    rows: OwnedRows
    good: np.ndarray
    is_new: np.ndarray
    known: np.ndarray

    @classmethod
    def of(cls, rows: OwnedRows, refused: Iterable[int], known: np.ndarray) -> Window:
        """Return the window of some rows.

        Args:
            rows: the rows.
            refused: positions of those that get no score.
            known: the record of each row, with score 0 if it is unknown.
        """
        good = np.delete(np.arange(rows.table.num_rows), list(refused))
        is_new = known["score"][good] == 0
        return cls(rows, good, is_new, known[good][~is_new])

    def row(self, at: int) -> int:
        """Return the row number of the pair at a position of `pairs`."""
        return self.rows.first_row + int(self.good[self.is_new][at])

    def pairs(self, columns: Columns) -> PairWindow:
        """Return the texts that the scorer gets."""
        texts = _taken(self.rows.table.select(columns.texts), self.good[self.is_new])
        documents = Texts(scored_documents(texts, columns))
        return PairWindow(
            Texts(texts[columns.query]),
            documents,
            prompts_of(texts, columns),
            title_lengths(texts, columns),
        )

    def all_scores(self, new: WindowScores) -> WindowScores:
        """Return the scores of all good rows, from those of the scorer and the known ones."""
        if not len(self.known):
            return new

        def merged(scored: np.ndarray, known: np.ndarray) -> np.ndarray:
            both = np.empty(len(self.good), known.dtype)
            both[self.is_new], both[~self.is_new] = scored, known
            return both

        logits, n_tokens, truncated = unpack(self.known["score"])
        places = np.flatnonzero(self.is_new)
        return WindowScores(
            logits=merged(new.logits, logits),
            n_tokens=merged(new.n_tokens, n_tokens),
            truncated=merged(new.truncated, truncated),
            no_rescue=new.no_rescue,
            passages=new.passages
            and Passages(
                *(
                    merged(getattr(new.passages, part), self.known[name])
                    for part, name in zip(_PASSAGE_PARTS, PASSAGE_COLUMNS, strict=True)
                )
            ),
            refused={int(places[at]): reason for at, reason in new.refused.items()},
        )


class _Attempt:
    """One pass of a shard's rows through the scorer.

    Attributes:
        waiting: the windows that the scorer has taken and not given back, oldest first.
    """

    def __init__(
        self,
        job: Job,
        shard: ShardSpec,
        work: ShardWork,
        known: KnownRows,
        unfit: dict[int, str],
        stack: ExitStack,
    ) -> None:
        self.waiting: deque[Window] = deque()
        self._job, self._shard, self._work = job, shard, work
        self._columns = job.plan.columns
        self._first_column = first_column(job.plan.schema, job.spec.fuse_col)
        self._known, self._unfit = known, unfit
        self._scored = Scored(
            kept=Spill(stack, work.scratch),
            checks=GroupChecks(job),
            hashed=Spill(stack, work.scratch) if job.spec.for_reuse else None,
            no_reuse=known.refused,
        )

    def run(self) -> Scored:
        scored, scorer = self._scored, self._work.model.scorer
        n_duplicates = scorer.stats.n_duplicates
        for scores in self._scores():
            self._keep(self.waiting.popleft(), scores)
            self._work.progress(scored.n_rows, scored.n_tokens)
        scored.checks.check_documents()
        scored.n_duplicates = scorer.stats.n_duplicates - n_duplicates
        return scored

    def _scores(self) -> Iterator[WindowScores]:
        """Score the windows, ahead of need; with suspects one by one, each on trial meanwhile."""
        scorer, suspects = self._work.model.scorer, self._work.suspects
        if suspects is None:
            yield from scorer.score(self._windows())
            return
        for pairs in self._windows():
            rows = self.waiting[-1].rows
            with suspects.on_trial(rows.first_row, rows.stop_row):
                yield from scorer.score([pairs])

    def _windows(self) -> Iterator[PairWindow]:
        """Read the shard's rows in windows, set the bad ones aside and yield the others' pairs."""
        columns, suspects = self._columns, self._work.suspects
        names = [*columns.texts, *columns.kept, *filter(None, [columns.doc_id])]
        names += [self._first_column] if self._first_column is not None else []
        stretch, is_first = self._known.stretch, True
        for owned in owned_rows(
            self._job, self._shard, names, stretch * self._work.window_pairs, self._work.reader
        ):
            cuts = [(owned.first_row, owned.stop_row)]
            if is_first:
                middle = min(owned.first_row + stretch * _FIRST_WINDOW_PAIRS, owned.stop_row)
                cuts = [(owned.first_row, middle), (middle, owned.stop_row)]
                is_first = False
            if suspects is not None:
                cuts = [piece for cut in cuts for piece in suspects.pieces(*cut)]
            for first, stop in cuts:
                if first < stop:
                    yield self._window(owned.between(first, stop))

    def _window(self, rows: OwnedRows) -> PairWindow:
        """Check some rows, note their window as waiting, and return the pairs to score."""
        first, stop, suspects = rows.first_row, rows.stop_row, self._work.suspects
        self._scored.checks.add(rows)
        refused = refusals(rows.table, self._columns, needs_prompt=self._job.spec.needs_prompt)
        if self._job.spec.fuse is not None and self._first_column is not None:
            is_infinite = np.isinf(first_scores(rows.table, self._first_column))
            for at in np.flatnonzero(is_infinite).tolist():
                refused.setdefault(at, f"column {self._first_column} is not finite")
        for row, reason in self._unfit.items():
            if first <= row < stop:
                refused.setdefault(row - first, reason)
        if suspects is not None and suspects.kills(first):
            refused.setdefault(0, KILLS)
        self._scored.rejected.update({first + at: reason for at, reason in refused.items()})
        self.waiting.append(Window.of(rows, refused, self._known.scores(first, stop)))
        return self.waiting[-1].pairs(self._columns)

    def _keep(self, window: Window, new: WindowScores) -> None:
        """Add a scored window to what is kept of the shard."""
        scored, columns, rows, good = self._scored, self._columns, window.rows, window.good
        scores = window.all_scores(new)
        finite = np.isfinite(scores.logits)
        not_finite = (
            NOT_FINITE if scores.no_rescue is None else f"{NOT_FINITE}, and {scores.no_rescue}"
        )
        for at in np.flatnonzero(~finite).tolist():
            reason = scores.refused.get(at, not_finite)
            scored.rejected[rows.first_row + int(good[at])] = reason
        results = pa.table(
            {name: values[finite] for name, values in _result_columns(scores).items()}
        )
        kept = _taken(rows.table.select(list(columns.kept)), good[finite])
        names = [*columns.kept.values(), *results.column_names]
        kept = pa.table([*kept.columns, *results.columns], names)
        scored.kept.add(kept)
        if scored.hashed is not None:
            hashes = self._known.hashes(rows.first_row, rows.stop_row)
            if hashes is None:
                has_passages = self._job.spec.has_passages
                hashes = hashed_pairs(rows.table, columns, has_passages=has_passages)
            hashes = hashes.take(pa.array(good[finite]))
            scored.hashed.add(results.add_column(0, PAIR_HASH_COLUMN, hashes))
        scored.logits.append(scores.logits[finite])
        scored.groups.append(rows.groups[good[finite]])
        lengths = scores.n_tokens[finite]
        if scores.passages is not None:
            lengths = lengths // np.maximum(1, scores.passages.n_passages[finite])
        scored.lengths.append(lengths)
        scored.rows.append(rows.first_row + good[finite])
        scored.truncated.append(scores.truncated[finite])
        if self._first_column is not None:
            of_rows = first_scores(rows.table, self._first_column)
            scored.first_scores.append(of_rows[good[finite]])
        scored.n_rows += rows.table.num_rows
        scored.n_tokens += int(scores.n_tokens.sum())
        scored.n_truncated += int(scores.truncated[finite].sum())
        scored.n_groups = int(rows.groups[-1]) + 1
        scored.n_reused += len(window.known)


def _result_columns(scores: WindowScores) -> dict[str, np.ndarray]:
    """Return what a window's scores say of each row, by the names of the columns in a part."""
    columns = {"logit": scores.logits, "n_tokens": scores.n_tokens, "truncated": scores.truncated}
    if scores.passages is not None:
        values = (getattr(scores.passages, part) for part in _PASSAGE_PARTS)
        columns |= zip(PASSAGE_COLUMNS, values, strict=True)
    return columns


def _taken(table: pa.Table, positions: np.ndarray) -> pa.Table:
    """Return the rows at rising positions; most often that is all of them, without a copy."""
    return table if len(positions) == table.num_rows else table.take(positions)
