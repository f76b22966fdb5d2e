"""The shape of a tokenizer's pairs: special tokens, token types and truncation.

It is learnt from one encoded pair, so that no architecture has to be known by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

_PROBE = ("alpha beta", "gamma delta epsilon")


@dataclass(frozen=True)
class PairTemplate:
    """`prefix + query + middle + document + suffix`, and the token type of each of the five."""

    prefix: tuple[int, ...]
    middle: tuple[int, ...]
    suffix: tuple[int, ...]
    types: tuple[int, int, int, int, int]

    @classmethod
    def learn(cls, tokenizer: Tokenizer) -> PairTemplate | None:
        """Learn the template from an encoded pair; return None if a pair has another shape."""
        encoding = tokenizer.encode(*_PROBE)
        owners = encoding.sequence_ids
        first, second = _span(owners, 0), _span(owners, 1)
        if first is None or second is None or first.stop > second.start:
            return None
        parts = [
            slice(0, first.start),
            first,
            slice(first.stop, second.start),
            second,
            slice(second.stop, len(owners)),
        ]
        prefix, query, middle, document, suffix = (encoding.ids[part] for part in parts)
        alone = [tokenizer.encode(text, add_special_tokens=False).ids for text in _PROBE]
        types = [set(encoding.type_ids[part]) for part in parts]
        if [query, document] != alone or any(len(kinds) > 1 for kinds in types):
            return None
        kinds = [next(iter(kinds), 0) for kinds in types]
        return cls(
            prefix=tuple(prefix),
            middle=tuple(middle),
            suffix=tuple(suffix),
            types=(kinds[0], kinds[1], kinds[2], kinds[3], kinds[4]),
        )

    @property
    def n_special(self) -> int:
        """The number of special tokens in a pair."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)


def longest_first(
    n_query: np.ndarray, n_document: np.ndarray, room: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the lengths of both texts after `longest_first` truncation to `room` tokens.

    This is the arithmetic of `truncate_encodings` in the tokenizers library, on arrays. The longer
    text is cut first. If that is not enough, both are halved; the longer gets the odd token.
    """
    shorter = np.minimum(n_query, n_document)
    longer = np.where(shorter > room, shorter, np.maximum(shorter, room - shorter))
    halved = shorter + longer > room
    shorter = np.where(halved, room // 2, shorter)
    longer = np.where(halved, room // 2 + room % 2, longer)
    query_is_longer = n_query > n_document
    fits = n_query + n_document <= room
    return (
        np.where(fits, n_query, np.where(query_is_longer, longer, shorter)),
        np.where(fits, n_document, np.where(query_is_longer, shorter, longer)),
    )


def _span(owners: Sequence[int | None], owner: int) -> slice | None:
    places = [place for place, each in enumerate(owners) if each == owner]
    if not places or places[-1] - places[0] + 1 != len(places):
        return None
    return slice(places[0], places[-1] + 1)
