"""Cut a document's tokens into passages that end with a sentence where one ends near."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worker.engine.passages.breaks import BREAK, SENTENCE, WORD
from worker.engine.passages.tokens import TokenStarts

# A passage ends with a sentence that ends within this part of its size from where it would end.
_NEAR = 4


@dataclass(frozen=True)
class Spans:
    """Passages of a document, as ranges of its characters, in order.

    Attributes:
        starts: the first character of each.
        stops: the character behind the last one of each.
        is_cut: whether text of the document is in no passage.
        title: what the model gets before each passage but the first; empty for nothing.
    """

    starts: list[int]
    stops: list[int]
    is_cut: bool
    title: str = ""


def passages(text: str, tokens: TokenStarts, size: int, overlap: int, most: int) -> Spans:
    """Return the passages of a document from its begin.

    Args:
        text: the document.
        tokens: its tokens.
        size: the most tokens of a passage.
        overlap: tokens that it shares with the one before, at most half of `size`; fewer where a
            sentence or word begins.
        most: the number of passages after which the rest of the document is left out.
    """
    n_tokens, begin = len(tokens.starts), 0
    ranges = []
    while True:
        stop, n_left = n_tokens, n_tokens - begin
        if n_left > size:
            # Of about equal length, so that none is too short to be judged.
            n_passages = -(-(n_left - overlap) // (size - overlap))
            even = overlap - (-(n_left - overlap) // n_passages)
            stop = _break_near(tokens.kinds, begin, even, size)
        ranges.append((begin, stop))
        if stop >= n_tokens or len(ranges) == most:
            break
        begin = _first_break(tokens.kinds, max(begin + 1, stop - overlap), stop)
    is_cut = stop < n_tokens or not tokens.is_whole
    return _spans(text, tokens, ranges, is_cut)


def first_and_last(text: str, tokens: TokenStarts, size: int, overlap: int) -> Spans:
    """Return the first and the last passage of a document that has more tokens than `size`.

    The arguments are those of `passages`. Where two passages are the document, they share `overlap`
    tokens; else the last one begins with a sentence if one begins near.
    """
    n_tokens = len(tokens.starts)
    stop = _break_near(tokens.kinds, 0, size, size)
    if stop >= n_tokens:
        return _spans(text, tokens, [(0, n_tokens)], not tokens.is_whole)
    earliest = n_tokens - size
    is_gap = earliest > stop
    if is_gap:
        begin = _first_break(tokens.kinds, earliest, earliest + size // _NEAR)
    else:
        begin = _first_break(tokens.kinds, max(1, earliest, stop - overlap), stop)
    return _spans(text, tokens, [(0, stop), (begin, n_tokens)], is_gap or not tokens.is_whole)


def _break_near(kinds: np.ndarray, begin: int, wanted: int, size: int) -> int:
    """Return the token that a passage ends before.

    It is the nearest sentence's, else word's, to `wanted` tokens from `begin`, not above `size`. It
    is a later one, or the end, only where nothing before is a place for a cut.
    """
    aim, most, near = begin + wanted, begin + size, size // _NEAR
    for kind, first, last in (
        (SENTENCE, aim - near, aim + near),
        (WORD, aim - near, aim + near),
        (BREAK, begin, most),
    ):
        first, last = max(first, begin + 1), min(last, most)
        found = first + np.flatnonzero(kinds[first : last + 1] >= kind)
        if len(found):
            distance = np.abs(found - aim)
            return int(found[distance == distance.min()][-1])
    later = np.flatnonzero(kinds[most + 1 :])
    return most + 1 + int(later[0]) if len(later) else len(kinds)


def _first_break(kinds: np.ndarray, earliest: int, stop: int) -> int:
    """Return the token that a passage begins with: `earliest`, or a later one before `stop`.

    It is `stop` only where nothing before is a place for a cut.
    """
    for kind in (SENTENCE, WORD, BREAK):
        found = np.flatnonzero(kinds[earliest:stop] >= kind)
        if len(found):
            return earliest + int(found[0])
    return stop


def _spans(text: str, tokens: TokenStarts, ranges: list[tuple[int, int]], is_cut: bool) -> Spans:
    starts, stops = [], []
    for begin, stop in ranges:
        first = int(tokens.starts[begin]) if begin else 0
        behind = int(tokens.starts[stop]) if stop < len(tokens.starts) else tokens.n_chars
        starts.append(first)
        stops.append(_end(text, first, behind))
    return Spans(starts, stops, is_cut)


def _end(text: str, start: int, stop: int) -> int:
    """Return the end of a range of characters without its white space at the end."""
    return start + len(text[start:stop].rstrip())
