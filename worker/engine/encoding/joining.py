"""Join pairs from texts tokenized alone, exactly as the tokenizer encodes pairs.

Where the tokenizer treats words alone, nothing is done in Python for each text or pair.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from worker.engine.batches.pairs import DistinctPairs, EncodedWindow, paired
from worker.engine.batches.ragged import exclusive_cumsum, flatten, ragged_arange, row_lengths
from worker.engine.encoding.pair_template import PairTemplate, longest_first
from worker.engine.encoding.utf8 import Utf8
from worker.engine.encoding.words import WordTokenizer
from worker.engine.folder.refusal import UnusableFolder
from worker.engine.values import PairWindow


class JoinEncoder:
    """An `Encoder` that tokenizes each text once and joins the halves by the pair template."""

    is_concurrent = True

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: PairTemplate,
        *,
        max_length: int,
        keep_end: bool,
        with_types: bool,
    ) -> None:
        self._tokenizer = tokenizer
        self._words = WordTokenizer.of(tokenizer)
        self._template = template
        self._room = max_length - template.n_special
        self._keep_end = keep_end
        self._with_types = with_types
        if self._room < 1:
            raise UnusableFolder(
                f"max_length {max_length} leaves no room for text: "
                f"{template.n_special} special tokens are added to each pair"
            )

    def encode(self, window: PairWindow) -> EncodedWindow:
        """Encode a window as `Encoder.encode`."""
        untruncated(self._tokenizer)
        if self._words is not None:
            queries, query_of_row = _by_words(self._words, window.queries)
            documents, document_of_row = _by_words(self._words, window.documents)
            return self._joined(queries, documents, *paired(query_of_row, document_of_row))
        pairs = DistinctPairs.of(window)
        return self._joined(
            self._tokenize(pairs.queries),
            self._tokenize(pairs.documents),
            pairs.query_of_pair,
            pairs.document_of_pair,
            pairs.pair_of_row,
        )

    def _joined(
        self,
        queries: _Texts,
        documents: _Texts,
        query_of_pair: np.ndarray,
        document_of_pair: np.ndarray,
        pair_of_row: np.ndarray,
    ) -> EncodedWindow:
        """Return the window of tokenized texts; the last three are those of `DistinctPairs`."""
        uncut = (queries.uncut[query_of_pair], documents.uncut[document_of_pair])
        kept = longest_first(*uncut, self._room)
        lengths = kept[0] + kept[1] + self._template.n_special
        ids = np.empty(int(lengths.sum()), dtype=np.int32)
        document_starts = self._write_specials(ids, lengths, kept[0])
        query_starts = exclusive_cumsum(lengths) + len(self._template.prefix)
        self._write_texts(ids, query_starts, queries, query_of_pair, kept[0])
        self._write_texts(ids, document_starts, documents, document_of_pair, kept[1])
        types = None
        if self._with_types:
            part_lengths = np.empty((len(lengths), 5), dtype=np.int64)
            part_lengths[:, 0] = len(self._template.prefix)
            part_lengths[:, 1] = kept[0]
            part_lengths[:, 2] = len(self._template.middle)
            part_lengths[:, 3] = kept[1]
            part_lengths[:, 4] = len(self._template.suffix)
            part_types = np.tile(np.array(self._template.types, dtype=np.uint8), len(lengths))
            types = np.repeat(part_types, part_lengths.reshape(-1))
        return EncodedWindow(
            ids=ids,
            types=types,
            lengths=lengths,
            truncated=uncut[0] + uncut[1] > self._room,
            pair_of_row=pair_of_row,
        )

    def _tokenize(self, texts: list[str]) -> _Texts:
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        part = slice(-self._room, None) if self._keep_end else slice(self._room)
        return _Texts.of((encoding.ids for encoding in encodings), part)

    def _write_specials(
        self, ids: np.ndarray, lengths: np.ndarray, n_query: np.ndarray
    ) -> np.ndarray:
        """Fill in the special tokens of every pair; return the start of each document."""
        template = self._template
        starts = exclusive_cumsum(lengths)
        middles = starts + len(template.prefix) + n_query
        suffixes = starts + lengths - len(template.suffix)
        for places, special in (
            (starts, template.prefix),
            (middles, template.middle),
            (suffixes, template.suffix),
        ):
            for offset, token in enumerate(special):
                ids[places + offset] = token
        document_starts: np.ndarray = middles + len(template.middle)
        return document_starts

    def _write_texts(
        self,
        ids: np.ndarray,
        places: np.ndarray,
        texts: _Texts,
        chosen: np.ndarray,
        n_kept: np.ndarray,
    ) -> None:
        starts = texts.starts[chosen]
        if self._keep_end:
            starts = starts + texts.stored[chosen] - n_kept
        ids[ragged_arange(places, n_kept)] = texts.ids[ragged_arange(starts, n_kept)]


def untruncated(tokenizer: Tokenizer) -> Tokenizer:
    """Return a tokenizer that neither truncates nor pads any more.

    It is shared with a tokenizer of transformers, which sets both at every call of its own.
    """
    if tokenizer.truncation is not None:
        tokenizer.no_truncation()
    if tokenizer.padding is not None:
        tokenizer.no_padding()
    return tokenizer


def _by_words(words: WordTokenizer, texts: Sequence[str]) -> tuple[_Texts, np.ndarray]:
    """Tokenize the distinct texts; return them and, of each text, its number among them."""
    rows = Utf8.of(texts)
    number_of_row, first = rows.distinct(words.library)
    ids, lengths = words.tokenize(rows if len(first) == len(rows) else rows.take(first))
    return _Texts(ids, exclusive_cumsum(lengths), lengths, lengths), number_of_row


@dataclass(frozen=True)
class _Texts:
    """Tokenized texts, cut to the length that a pair can keep at most.

    Attributes:
        ids: int32, the kept tokens of all texts.
        starts: int64 (texts,), the first kept token of each.
        stored: int64 (texts,), kept tokens.
        uncut: int64 (texts,), tokens before the cut.
    """

    ids: np.ndarray
    starts: np.ndarray
    stored: np.ndarray
    uncut: np.ndarray

    @classmethod
    def of(cls, texts: Iterable[Sequence[int]], part: slice) -> _Texts:
        kept = []
        uncut = []
        for ids in texts:
            kept.append(ids[part])
            uncut.append(len(ids))
        stored = row_lengths(kept)
        return cls(
            ids=flatten(kept, int(stored.sum()), np.int32),
            starts=exclusive_cumsum(stored),
            stored=stored,
            uncut=np.array(uncut, dtype=np.int64),
        )
