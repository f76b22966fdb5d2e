"""Tokenize texts word by word, each distinct word once.

The tokenizers of BERT treat every word between white space by itself, so a text's tokens are those
of its words. Words repeat: after some windows, hardly one is new. The tokenizers library tokenizes
the new ones; `compiled/words.c` splits texts and joins the ids of their words.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from itertools import pairwise

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from worker.engine.batches.ragged import flatten, row_lengths
from worker.engine.compiled.library import text_library
from worker.engine.encoding.utf8 import Utf8

# A table beyond either is emptied. Words of languages without white space are whole clauses.
_MOST_WORDS, _MOST_BYTES = 2**18, 2**23


class WordTokenizer:
    """A tokenizer of texts, without special tokens; equal to the tokenizers library's own."""

    def __init__(self, tokenizer: Tokenizer, library: ctypes.CDLL) -> None:
        self._tokenizer = tokenizer
        self.library = library
        self._lock = threading.Lock()
        self._free: weakref.finalize[..., WordTokenizer] | None = None
        self._new_table()

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> WordTokenizer | None:
        """Return one for a tokenizer; None if it may see more than one word at a time.

        BertNormalizer maps each character by itself, but for the order of marks, which white space
        ends. BertPreTokenizer splits at white space. A token that was added could hold white space.
        """
        library = text_library()
        treats_words_alone = (
            isinstance(tokenizer.normalizer, BertNormalizer)
            and isinstance(tokenizer.pre_tokenizer, BertPreTokenizer)
            and isinstance(tokenizer.model, WordPiece)
            and all(
                token.content.isascii() and token.content.isprintable() and " " not in token.content
                for token in tokenizer.get_added_tokens_decoder().values()
            )
        )
        return cls(tokenizer, library) if library is not None and treats_words_alone else None

    def tokenize(self, texts: Utf8) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of all texts, int32 (tokens,), and how many each has, int64 (texts,).

        May be called in several threads.
        """
        n_texts = len(texts)
        # A word takes a byte and white space, the last one of a text none.
        word_of = np.empty(int(texts.bounds[-1] - texts.bounds[0]) // 2 + n_texts, np.int32)
        word_ends, lengths = (np.empty(n_texts, np.int64) for _ in range(2))
        words = word_of.ctypes.data, word_ends.ctypes.data
        with self._lock:
            n_words, _, n_bytes = self._sizes()
            if n_words > _MOST_WORDS or n_bytes > _MOST_BYTES:
                self._new_table()
            table, library = self._table, self.library
            n_words = library.rankmill_words_split(
                table, texts.content.ctypes.data, texts.bounds.ctypes.data, n_texts, *words
            )
            self._define_new(failed=n_words < 0)
            n_tokens = library.rankmill_words_count(table, *words, n_texts, lengths.ctypes.data)
            ids = np.empty(n_tokens, np.int32)
            library.rankmill_words_write(table, words[0], n_words, ids.ctypes.data)
        return ids, lengths

    def _define_new(self, *, failed: bool) -> None:
        """Tokenize the words that have no ids yet.

        Raises:
            MemoryError: there is no memory for the words.
        """
        n_words, n_defined, _ = self._sizes()
        try:
            if failed:
                raise MemoryError("no memory for the words of a window")
            if n_words == n_defined:
                return
            ends = np.zeros(n_words - n_defined + 1, np.int64)
            at = self.library.rankmill_words_unknown(self._table, ends[1:].ctypes.data)
            content = ctypes.string_at(at, int(ends[-1]))
            bounds = ends.tolist()
            new = [content[a:b].decode() for a, b in pairwise(bounds)]
            encodings = self._tokenizer.encode_batch_fast(new, add_special_tokens=False)
            rows = [encoding.ids for encoding in encodings]
            lengths = row_lengths(rows)
            ids = flatten(rows, int(lengths.sum()), np.int32)
            if not self.library.rankmill_words_define(
                self._table, ids.ctypes.data, lengths.ctypes.data, len(rows)
            ):
                raise MemoryError("no memory for the tokens of a window's words")
        except BaseException:
            self._new_table()  # a word that is refused must not fail the next texts
            raise

    def _sizes(self) -> list[int]:
        """Return the number of words, of words with ids, and of their bytes."""
        sizes = np.empty(3, np.int64)
        self.library.rankmill_words_size(self._table, sizes.ctypes.data)
        return [int(size) for size in sizes]

    def _new_table(self) -> None:
        table = self.library.rankmill_words_new()
        if table is None:
            raise MemoryError("no memory for a table of words")
        if self._free is not None:
            self._free()
        self._table = table
        self._free = weakref.finalize(self, self.library.rankmill_words_free, table)
