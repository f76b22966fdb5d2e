"""Cut the documents of windows into passages, and encode these as pairs with their queries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from worker.engine.batches.pairs import DistinctPairs, EncodedWindow
from worker.engine.encoding.encoder import Encoder
from worker.engine.folder.refusal import UnusableFolder
from worker.engine.passages.cutting import Spans, first_and_last, passages
from worker.engine.passages.limits import TextLimits
from worker.engine.passages.tokens import TokenStarts, count_tokens, cut_texts, find_tokens
from worker.engine.values import PairWindow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A longer document is scored by so many passages from its begin.
MOST_PASSAGES = 4096
# Less is not worth a score.
_LEAST_ROOM = 10
# A passage's first word may have more tokens without the space before it.
_SLACK = 2
# Passages that are too long for the encoder are made shorter so many times.
_ROUNDS = 4
_STEP = 8
# A longer title is not repeated, since it would leave too little for the passage.
_TITLE_SHARE = 4
_CHUNK_CHARS = 2**19
_FILLER = "a"


@dataclass(frozen=True)
class Piece:
    """Some distinct pairs of a window, with their documents cut into passages.

    Attributes:
        passages: each passage with its query.
        encoded: the same, encoded.
        pair_of_passage: int64 (passages,), rising; positions among the pairs of the piece.
        starts: int32 (passages,), the first character of each passage in its document.
        stops: int32 (passages,), the character behind its last one.
        is_cut: bool (pairs,), whether text of the query or the document is in no passage. A pair
            whose query leaves no room has none at all.
        first_pair: the number of the piece's first pair among those of the window.
        pair_of_row: int64 (rows,), the number of the pair of each row of the window.
        is_last: whether it is the window's last piece.
    """

    passages: PairWindow
    encoded: EncodedWindow
    pair_of_passage: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    is_cut: np.ndarray
    first_pair: int
    pair_of_row: np.ndarray
    is_last: bool

    @property
    def n_passages(self) -> np.ndarray:
        """The passages of each pair, int64 (pairs,); 0 where its query leaves no room."""
        return np.diff(self.bounds)

    @property
    def n_tokens(self) -> np.ndarray:
        """The tokens of each pair in all of its passages, int64 (pairs,)."""
        return self._sums(self.encoded.lengths)

    @property
    def n_shared(self) -> np.ndarray:
        """Those of them in prefixes that all pairs of its query share, int64 (pairs,)."""
        return self._sums(self.encoded.n_shared)

    @property
    def truncated(self) -> np.ndarray:
        """Whether the model does not get all of a pair's text, bool (pairs,)."""
        return self.is_cut | (self._sums(self.encoded.truncated) > 0)

    def _sums(self, of_encoded: np.ndarray) -> np.ndarray:
        of_passages = of_encoded[self.encoded.pair_of_row]
        sums = np.bincount(self.pair_of_passage, of_passages, minlength=len(self.is_cut))
        return sums.astype(np.int64)

    @property
    def bounds(self) -> np.ndarray:
        """The first passage of each pair, and behind them the number of passages."""
        return np.searchsorted(self.pair_of_passage, np.arange(len(self.is_cut) + 1))

    def row(self, passage: int) -> int:
        """Return the first row of the window that has a passage."""
        pair = self.first_pair + int(self.pair_of_passage[passage])
        return int(np.flatnonzero(self.pair_of_row == pair)[0])


class PassagePlanner:
    """Cuts the texts of windows by limits, never inside a character as people see it."""

    def __init__(
        self,
        encoder: Encoder,
        tokenizer: PreTrainedTokenizerBase,
        limits: TextLimits,
        max_length: int,
    ) -> None:
        """Keep what decides how much fits.

        Args:
            encoder: encodes the pairs, truncated to `max_length`.
            tokenizer: the model's.
            limits: the cuts.
            max_length: tokens of a pair.

        Raises:
            UnusableFolder: the tokenizer does not say where in a text its tokens are.
        """
        if not tokenizer.is_fast:
            raise UnusableFolder(
                "the model's tokenizer does not say where in a text its tokens are, so that "
                "--long-docs, --max-query-tokens and --max-document-tokens cannot cut it"
            )
        self._encoder = encoder
        self._tokenizer = tokenizer.backend_tokenizer
        self._limits = limits
        self._max_length = max_length
        [self._n_filler] = count_tokens(self._tokenizer, [_FILLER])

    def pieces(self, window: PairWindow) -> Iterator[Piece]:
        """Yield the distinct pairs of a window in pieces of bounded size, at least one.

        A pair depends on its own texts alone, not on the others of its window.
        """
        pairs = DistinctPairs.of(window)
        queries, is_query_cut = cut_texts(
            self._tokenizer, pairs.queries, self._limits.max_query_tokens
        )
        rooms = self._rooms(queries, pairs.prompts)
        n_pairs = len(pairs.query_of_pair)
        start, is_last = 0, False
        while not is_last:
            stop = _chunk_end(pairs, start)
            is_last = stop >= n_pairs
            chunk = slice(start, stop)
            query_of_pair = pairs.query_of_pair[chunk]
            numbers, document_of_pair = np.unique(
                pairs.document_of_pair[chunk], return_inverse=True
            )
            documents, is_document_cut = cut_texts(
                self._tokenizer,
                [pairs.documents[number] for number in numbers],
                self._limits.max_document_tokens,
            )
            titles = [
                document[: pairs.title_chars[number]]
                for number, document in zip(numbers, documents, strict=True)
            ]
            title_tokens = self._title_tokens(titles)
            of_pairs = _Pairs(
                [queries[at] for at in query_of_pair],
                [pairs.prompts[at] for at in query_of_pair],
                rooms[query_of_pair],
                [documents[at] for at in document_of_pair],
                [titles[at] for at in document_of_pair],
                title_tokens[document_of_pair],
                self._tokens(documents, document_of_pair),
            )
            spans, passages_of_pairs, encoded = self._encoded(of_pairs)
            is_text_cut = is_query_cut[query_of_pair] | is_document_cut[document_of_pair]
            yield Piece(
                passages=passages_of_pairs,
                encoded=encoded,
                pair_of_passage=np.repeat(
                    np.arange(len(spans)), [len(each.starts) for each in spans]
                ),
                starts=np.array([at for each in spans for at in each.starts], np.int32),
                stops=np.array([at for each in spans for at in each.stops], np.int32),
                is_cut=is_text_cut | np.array([each.is_cut for each in spans], bool),
                first_pair=start,
                pair_of_row=pairs.pair_of_row,
                is_last=is_last,
            )
            start = stop

    def _rooms(self, queries: list[str], prompts: list[str | None]) -> np.ndarray:
        """Return the tokens of a passage that fit next to each query, int64 (queries,)."""
        if not self._limits.has_passages:
            return np.zeros(len(queries), np.int64)
        window = PairWindow(queries, [_FILLER] * len(queries), prompts)
        encoded = self._encoder.encode(window)
        row = encoded.pair_of_row
        free = self._max_length - encoded.lengths[row] + self._n_filler
        return np.where(encoded.truncated[row], 0, free)

    def _title_tokens(self, titles: list[str]) -> np.ndarray:
        """Return the tokens of titles with the space behind them, int64 (titles,)."""
        if not self._limits.has_passages or not any(titles):
            return np.zeros(len(titles), np.int64)
        return np.array(count_tokens(self._tokenizer, titles), np.int64)

    def _tokens(self, documents: list[str], document_of_pair: np.ndarray) -> list[TokenStarts]:
        if not self._limits.has_passages:
            return []
        most = self._limits.passage_tokens or self._max_length
        is_whole = self._limits.long_docs == "first-and-last"
        found = list(
            find_tokens(self._tokenizer, documents, None if is_whole else MOST_PASSAGES * most)
        )
        return [found[at] for at in document_of_pair]

    def _encoded(self, pairs: _Pairs) -> tuple[list[Spans], PairWindow, EncodedWindow]:
        """Return the passages of each pair, as ranges, as texts and encoded."""
        spans = [self._spans(pairs, at) for at in range(len(pairs.queries))]
        rounds = _ROUNDS if self._limits.has_passages else 0
        while True:
            owners = np.repeat(np.arange(len(spans)), [len(each.starts) for each in spans])
            window = pairs.window(spans)
            encoded = self._encoder.encode(window)
            too_long = np.unique(owners[encoded.truncated[encoded.pair_of_row]])
            if not rounds or not len(too_long):
                return spans, window, encoded
            # The text next to a passage, such as a template's, can add to its tokens.
            rounds -= 1
            for at in too_long.tolist():
                n_tokens = len(pairs.tokens[at].starts)
                pairs.rooms[at] = max(_LEAST_ROOM, min(pairs.rooms[at], n_tokens) - _STEP)
                spans[at] = self._spans(pairs, at)

    def _spans(self, pairs: _Pairs, at: int) -> Spans:
        text = pairs.documents[at]
        if not self._limits.has_passages:
            return Spans([0], [len(text)], False)
        tokens, room = pairs.tokens[at], int(pairs.rooms[at])
        if len(tokens.starts) <= min(room, self._limits.passage_tokens or room):
            return Spans([0], [len(text)], False)
        if room < _LEAST_ROOM:
            return Spans([], [], False)
        size = min(self._limits.passage_tokens or room, room - _SLACK)
        n_title = int(pairs.title_tokens[at])
        title = pairs.titles[at] if n_title <= size // _TITLE_SHARE else ""
        size -= n_title if title else 0
        overlap = min(self._limits.passage_stride, size // 2)
        if self._limits.long_docs == "first-and-last":
            spans = first_and_last(text, tokens, size, overlap)
        else:
            spans = passages(text, tokens, size, overlap, MOST_PASSAGES)
        return replace(spans, title=title)


@dataclass(frozen=True)
class _Pairs:
    """Pairs whose documents are cut, with an entry for each.

    Attributes:
        titles: the title that each document begins with; empty without one.
        title_tokens: int64 (pairs,).
        rooms: int64 (pairs,), the most tokens of a passage; lowered where passages turn out longer.
        tokens: those of the documents; empty where documents have no passages.
    """

    queries: list[str]
    prompts: list[str | None]
    rooms: np.ndarray
    documents: list[str]
    titles: list[str]
    title_tokens: np.ndarray
    tokens: list[TokenStarts]

    def window(self, spans: list[Spans]) -> PairWindow:
        """Return the passages with their queries; those after the first begin with the title."""
        queries, prompts, texts = [], [], []
        for at, each in enumerate(spans):
            for start, stop in zip(each.starts, each.stops, strict=True):
                queries.append(self.queries[at])
                prompts.append(self.prompts[at])
                text = self.documents[at][start:stop]
                texts.append(f"{each.title} {text}" if each.title and start else text)
        return PairWindow(queries, texts, prompts)


def _chunk_end(pairs: DistinctPairs, start: int) -> int:
    """Return the end of a chunk of pairs: one, or more with few characters together."""
    n_chars, stop = 0, start
    for stop, document in enumerate(pairs.document_of_pair[start:].tolist(), start):
        n_chars += len(pairs.documents[document])
        if n_chars > _CHUNK_CHARS and stop > start:
            return stop
    return len(pairs.document_of_pair)
