"""A scorer that cuts texts as `TextLimits` say, and scores a document by its passages."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import pairwise

import numpy as np

from worker.engine.agreement import Agreement
from worker.engine.batches.pairs import EncodedWindow
from worker.engine.device.runner import PairTooLargeError
from worker.engine.passages.limits import TextLimits
from worker.engine.passages.outcome import document_logit
from worker.engine.passages.planning import PassagePlanner, Piece
from worker.engine.scorer import Scorer, ScorerInfo
from worker.engine.stats import ScorerStats
from worker.engine.values import PairWindow, Passages, WindowScores

# Reasons, for the rejects of a job.
NO_ROOM = "query leaves no room for a passage; give --max-query-tokens, or a higher --max-length"
NOT_FINITE = "score of a passage is not finite"


class PassageScorer:
    """A `Scorer` with limits; its figures count the rows of windows, not passages.

    Attributes:
        scorer: scores the passages.
    """

    def __init__(self, scorer: Scorer, limits: TextLimits) -> None:
        """Wrap a scorer.

        Raises:
            UnusableFolder: as `PassagePlanner`.
        """
        self.scorer = scorer
        self._limits = limits
        self._planner = PassagePlanner(
            scorer.encoder, scorer.tokenizer, limits, scorer.info.max_length
        )
        self._n_rows = self._n_pairs = self._n_truncated = 0

    @property
    def info(self) -> ScorerInfo:
        """The facts about the scorer of passages."""
        return self.scorer.info

    @property
    def stats(self) -> ScorerStats:
        """The totals since loading: rows and tokens, as a snapshot."""
        return replace(
            self.scorer.stats,
            n_pairs=self._n_rows,
            n_unique_pairs=self._n_pairs,
            n_truncated=self._n_truncated,
        )

    def score(self, windows: Iterable[PairWindow]) -> Iterator[WindowScores]:
        """Yield the scores of each window in order, with a bounded number of passages at a time.

        Raises:
            PairTooLargeError, DeviceFullError, DeviceFaultError, ForwardError: as `Scorer.score`.
        """
        waiting: deque[Piece] = deque()

        def encoded() -> Iterator[EncodedWindow]:
            for window in windows:
                for piece in self._planner.pieces(window):
                    waiting.append(piece)
                    yield piece.encoded

        done: list[WindowScores] = []
        try:
            with closing(self.scorer.score_encoded(encoded())) as results:
                for scores in results:
                    piece = waiting.popleft()
                    done.append(_of_documents(piece, scores, self._limits))
                    if piece.is_last:
                        yield self._of_rows(piece, done)
                        done = []
        except PairTooLargeError as error:
            raise PairTooLargeError(waiting[0].row(error.row), error.n_tokens) from error

    def agreement(self, window: PairWindow, logits: np.ndarray | None = None) -> Agreement:
        """Compare this precision's ranking of the window's first passages with that of fp32.

        The passages are scored again: `logits` has those of documents.

        Raises:
            DeviceFullError: as `Scorer.agreement`.
        """
        piece = next(self._planner.pieces(window))
        return self.scorer.compare(piece.passages.queries, piece.encoded)

    def have_weights_changed(self) -> bool:
        """Return whether the files of weights in use were written to since they were loaded."""
        return self.scorer.have_weights_changed()

    def prove(self) -> None:
        """Run a full batch, as `Scorer.prove`."""
        self.scorer.prove()

    def _of_rows(self, last: Piece, done: list[WindowScores]) -> WindowScores:
        """Return the scores of a window's rows from those of its distinct pairs."""
        pairs, row = _joined(done), last.pair_of_row
        scores = WindowScores(
            logits=pairs.logits[row],
            n_tokens=pairs.n_tokens[row],
            truncated=pairs.truncated[row],
            no_rescue=pairs.no_rescue,
            passages=pairs.passages and pairs.passages.take(row),
            refused={
                at: pairs.refused[pair]
                for at, pair in enumerate(row.tolist())
                if pair in pairs.refused
            },
        )
        self._n_rows += len(row)
        self._n_pairs += len(pairs.logits)
        self._n_truncated += int(scores.truncated.sum())
        return scores


def _of_documents(piece: Piece, scores: WindowScores, limits: TextLimits) -> WindowScores:
    """Return the scores of a piece's pairs from those of their passages."""
    n_pairs = len(piece.is_cut)
    logits, refused = np.full(n_pairs, np.nan, np.float32), {}
    starts, stops = np.zeros(n_pairs, np.int32), np.zeros(n_pairs, np.int32)
    for pair, (first, stop) in enumerate(pairwise(piece.bounds.tolist())):
        if first == stop:
            refused[piece.first_pair + pair] = NO_ROOM
            continue
        of_pair = scores.logits[first:stop]
        logits[pair] = document_logit(of_pair, limits.long_docs)
        best = first + int(np.argmax(of_pair))
        starts[pair], stops[pair] = piece.starts[best], piece.stops[best]
        if stop - first > 1 and not np.isfinite(logits[pair]):
            refused[piece.first_pair + pair] = NOT_FINITE
    passages = Passages(piece.n_passages.astype(np.int32), starts, stops)
    return WindowScores(
        logits,
        piece.n_tokens.astype(np.int32),
        piece.truncated,
        no_rescue=scores.no_rescue,
        passages=passages if limits.has_passages else None,
        refused=refused,
    )


def _joined(parts: list[WindowScores]) -> WindowScores:
    passages = [part.passages for part in parts if part.passages is not None]
    return WindowScores(
        logits=np.concatenate([part.logits for part in parts]),
        n_tokens=np.concatenate([part.n_tokens for part in parts]),
        truncated=np.concatenate([part.truncated for part in parts]),
        no_rescue=parts[-1].no_rescue,
        passages=Passages(
            np.concatenate([each.n_passages for each in passages]),
            np.concatenate([each.starts for each in passages]),
            np.concatenate([each.stops for each in passages]),
        )
        if passages
        else None,
        refused={pair: reason for part in parts for pair, reason in part.refused.items()},
    )
