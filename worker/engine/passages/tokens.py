"""Find where the tokens of a text begin, for texts of any length in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from worker.engine.encoding.joining import untruncated
from worker.engine.passages.breaks import NO_BREAK, find_breaks

# The tokenizers library takes about 150 bytes for a token with its place.
_PIECE_CHARS = 2**16
_BATCH_CHARS = 2**19
# A piece ends at white space that is not further from its end.
_LOOK_BACK_CHARS = 2**12


@dataclass(frozen=True)
class TokenStarts:
    """The tokens of a text, or the first of them.

    Attributes:
        starts: int32 (tokens,), the character that each begins with, never white space.
        kinds: uint8 (tokens,), the kind of place before each.
        n_chars: the characters that the tokens cover.
        is_whole: whether these are all of the text.
    """

    starts: np.ndarray
    kinds: np.ndarray
    n_chars: int
    is_whole: bool

    def cut(self, n_tokens: int) -> TokenStarts:
        """Return the first tokens, at most `n_tokens`, or more where the first place is later."""
        if len(self.starts) <= n_tokens:
            return self
        allowed = 1 + np.flatnonzero(self.kinds[1:])
        if not len(allowed):
            return self
        stop = int(allowed[max(0, int(np.searchsorted(allowed, n_tokens, "right")) - 1)])
        return TokenStarts(self.starts[:stop], self.kinds[:stop], int(self.starts[stop]), False)


def count_tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> list[int]:
    """Return the number of tokens of each text, without special tokens."""
    encodings = untruncated(tokenizer).encode_batch_fast(texts, add_special_tokens=False)
    return [len(encoding.ids) for encoding in encodings]


def find_tokens(
    tokenizer: Tokenizer, texts: Sequence[str], most: int | None
) -> Iterator[TokenStarts]:
    """Yield the tokens of each text, in order.

    Args:
        tokenizer: it is called without special tokens.
        texts: any texts; a long one is tokenized in pieces that end at white space.
        most: stop a text at about this many tokens, or None for all.
    """
    start = 0
    while start < len(texts):
        stop, n_chars = start, 0
        while stop < len(texts) and (stop == start or n_chars + len(texts[stop]) <= _BATCH_CHARS):
            n_chars += len(texts[stop])
            stop += 1
        batch = texts[start:stop]
        if stop - start == 1 and len(batch[0]) > _PIECE_CHARS:
            yield _of_long(tokenizer, batch[0], most)
        else:
            yield from _of_pieces(tokenizer, batch)
        start = stop


def _of_long(tokenizer: Tokenizer, text: str, most: int | None) -> TokenStarts:
    found: list[TokenStarts] = []
    n_tokens = at = 0
    while at < len(text) and (most is None or n_tokens <= most):
        end = _piece_end(text, at)
        [piece] = _of_pieces(tokenizer, [text[at:end]])
        found.append(TokenStarts(piece.starts + np.int32(at), piece.kinds, end, True))
        n_tokens += len(piece.starts)
        at = end
    return TokenStarts(
        np.concatenate([piece.starts for piece in found]),
        np.concatenate([piece.kinds for piece in found]),
        at,
        at >= len(text),
    )


def _piece_end(text: str, start: int) -> int:
    end = start + _PIECE_CHARS
    if end >= len(text):
        return len(text)
    kinds, next_visible = find_breaks(text[end - _LOOK_BACK_CHARS : end])
    spaces = np.flatnonzero(next_visible[:-1] != np.arange(_LOOK_BACK_CHARS))
    allowed = spaces if len(spaces) else np.flatnonzero(kinds[:-1])[1:]
    return end - _LOOK_BACK_CHARS + int(allowed[-1]) if len(allowed) else end


def _of_pieces(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[TokenStarts]:
    encodings = untruncated(tokenizer).encode_batch(texts, add_special_tokens=False)
    for text, encoding in zip(texts, encodings, strict=True):
        kinds_of_chars, next_visible = find_breaks(text)
        offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)
        starts = next_visible[np.minimum(offsets[:, 0], len(text))]
        # Tokens of one character, or of white space alone, begin where the one before does.
        starts = np.maximum.accumulate(starts) if len(starts) else starts
        kinds = kinds_of_chars[starts]
        kinds[1:][starts[1:] == starts[:-1]] = NO_BREAK
        kinds[starts >= len(text)] = NO_BREAK
        yield TokenStarts(starts.astype(np.int32), kinds, len(text), True)


def cut_texts(
    tokenizer: Tokenizer, texts: list[str], most: int | None
) -> tuple[list[str], np.ndarray]:
    """Cut texts to a number of tokens, at the end of one.

    Args:
        tokenizer: it is called without special tokens.
        texts: any texts.
        most: the tokens that each keeps, or None for all; more where its first character has more.

    Returns:
        The texts, and which were cut, bool (texts,).
    """
    if most is None:
        return texts, np.zeros(len(texts), bool)
    found = find_tokens(tokenizer, texts, most + 1)
    kept = [_cut(tokenizer, text, tokens, most) for text, tokens in zip(texts, found, strict=True)]
    return kept, np.array([len(new) < len(old) for new, old in zip(kept, texts, strict=True)], bool)


def _cut(tokenizer: Tokenizer, text: str, tokens: TokenStarts, most: int) -> str:
    """Cut a text so that it has at most `most` tokens when it is tokenized by itself."""
    aim = most
    while (kept := tokens.cut(aim)) is not tokens:
        shorter = text[: kept.n_chars].rstrip()
        [n_tokens] = count_tokens(tokenizer, [shorter])
        if n_tokens <= most or aim == 1:
            return shorter
        aim = max(1, aim - (n_tokens - most))
    return text
