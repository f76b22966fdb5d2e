"""The places where a text may be cut: before sentences, words and characters as people see them."""

from __future__ import annotations

import re
import unicodedata

import numpy as np

# The kinds of places, in rising order.
NO_BREAK, BREAK, WORD, SENTENCE = range(4)

# The ends of sentences with what closes them. Those of Latin, Arabic, Hindi, Urdu and Amharic are
# followed by white space, those of Chinese and Japanese are not; an empty line ends one anywhere.
_SENTENCE_END = re.compile(
    r"""[.!?\u2026\u061f\u0964\u0965\u06d4\u1362]["'\u201d\u2019\u00bb)\]]*\s+"""
    r"""|[\u3002\uff01\uff1f\uff61]["'\u201d\u2019\u300d\u300f\uff09\u3011]*\s*"""
    r"""|\n[^\S\n]*\n\s*"""
)
_SPACES = np.array([code for code in range(0x3001) if chr(code).isspace()], np.uint32)
_JOINER = 0x200D
# The combining class of signs that join consonants of Indic scripts.
_VIRAMA = 9
# Skin tones, tags of flags, and vowels and finals of conjoining Hangul belong to what they follow.
_FOLLOWERS = ((0x1F3FB, 0x1F3FF), (0xE0020, 0xE007F), (0x1160, 0x11FF))
_FLAG_LETTERS = (0x1F1E6, 0x1F1FF)
# Letters of scripts that are written without spaces: Chinese, Japanese.
_UNSPACED = ((0x2E80, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))
_FIRST_MARK = 0x300


def find_breaks(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Find where a text may be cut.

    Returns:
        kinds: uint8 (characters + 1,), the kind of place before each character, and of the end.
        next_visible: int64 (characters + 1,), the first character from each on that is not white
            space.
    """
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    n_chars = len(codes)
    is_space = np.isin(codes, _SPACES)
    kinds = np.full(n_chars + 1, BREAK, np.uint8)
    kinds[:1] = kinds[n_chars:] = WORD
    kinds[1:n_chars][is_space[:-1] & ~is_space[1:]] = WORD
    if n_chars and codes.max() >= _FIRST_MARK:
        _add_unspaced_words(codes, kinds)
    for end in _SENTENCE_END.finditer(text):
        kinds[end.end()] = SENTENCE
    if n_chars and codes.max() >= _FIRST_MARK:
        _join_characters(codes, kinds)
    visible = np.where(is_space, n_chars, np.arange(n_chars))
    next_visible = np.append(np.minimum.accumulate(visible[::-1])[::-1], n_chars)
    return kinds, next_visible


def _add_unspaced_words(codes: np.ndarray, kinds: np.ndarray) -> None:
    for code in np.unique(codes[_within(codes, _UNSPACED)]):
        if unicodedata.category(chr(code))[0] == "L":
            kinds[:-1][codes == code] = WORD


def _join_characters(codes: np.ndarray, kinds: np.ndarray) -> None:
    """Forbid the places inside what Unicode calls a grapheme cluster, by its most common rules."""
    joins = codes == _JOINER
    follows = _within(codes, _FOLLOWERS) | joins
    for code in np.unique(codes[codes >= _FIRST_MARK]):
        if unicodedata.category(chr(code))[0] == "M":
            follows |= codes == code
        if unicodedata.combining(chr(code)) == _VIRAMA:
            joins |= codes == code
    is_flag = _within(codes, (_FLAG_LETTERS,))
    follows[1:] |= joins[:-1] | (is_flag[:-1] & is_flag[1:])
    kinds[1:-1][follows[1:]] = NO_BREAK


def _within(codes: np.ndarray, ranges: tuple[tuple[int, int], ...]) -> np.ndarray:
    is_within = np.zeros(len(codes), bool)
    for first, last in ranges:
        is_within |= (codes >= first) & (codes <= last)
    return is_within
