"""Find the tokens that a pair shares with every pair of its query, whatever its document is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from worker.engine.batches.pairs import EncodedWindow
from worker.engine.batches.segments import Prefixes
from worker.engine.encoding.encoder import Encoder
from worker.engine.values import PairWindow

# Documents that begin unlike each other: a tokenizer joins a space with a letter, not with a digit.
_FILLERS = ("0", "a")


class SharingEncoder:
    """An `Encoder` of decoders: it adds the prefixes that are computed once.

    The prefix of a query is what its pairs with two filler documents begin with. The prefix of a
    pair is its own beginning as far as it equals that. So it is a function of the pair alone, and a
    pair's bits do not depend on the pairs in its batch or shard.
    """

    is_concurrent = False

    def __init__(self, encoder: Encoder, *, unread: int | None) -> None:
        """Take an encoder, and the token that is not read at the end of a pair, if one is not."""
        self._encoder = encoder
        self._unread = unread

    def encode(self, window: PairWindow) -> EncodedWindow:
        """Encode a window as `Encoder.encode`."""
        encoded = self._encoder.encode(window)
        row_of_pair = np.unique(encoded.pair_of_row, return_index=True)[1]
        prompts = window.prompts or [None] * len(window.queries)
        numbers: dict[tuple[str, str | None], int] = {}
        query_of_pair = [
            numbers.setdefault((window.queries[row], prompts[row]), len(numbers))
            for row in row_of_pair
        ]
        fillers = self._encoder.encode(
            PairWindow(
                [query for query, _ in numbers for _ in _FILLERS],
                list(_FILLERS) * len(numbers),
                None
                if window.prompts is None
                else [prompt for _, prompt in numbers for _ in _FILLERS],
            )
        )
        rows_of_fillers = _rows(fillers)
        starting = [
            _common(*(rows_of_fillers[pair] for pair in fillers.pair_of_row[at : at + 2]))
            for at in range(0, 2 * len(numbers), 2)
        ]
        rows = _rows(encoded)
        used = np.array([self._n_used(row) for row in rows], dtype=np.int64)
        shared = np.zeros(len(used), dtype=np.int64)
        prefixes: dict[bytes, int] = {}
        of_pair = np.zeros(len(used), dtype=np.int64)
        for pair, query in enumerate(query_of_pair):
            prefix = _common(rows[pair][: used[pair] - 1], starting[query])
            shared[pair] = len(prefix)
            of_pair[pair] = prefixes.setdefault(prefix.tobytes(), len(prefixes))
        return replace(encoded, prefixes=Prefixes(used=used, shared=shared, of_pair=of_pair))

    def _n_used(self, ids: np.ndarray) -> int:
        """Return the number of tokens up to the one that is read."""
        if self._unread is None:
            return len(ids)
        read = np.flatnonzero(ids != self._unread)
        return int(read[-1]) + 1 if len(read) else 1


def _rows(window: EncodedWindow) -> list[np.ndarray]:
    """Return the tokens of each pair."""
    return np.split(window.ids, window.starts[1:]) if len(window.lengths) else []


def _common(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the tokens that both begin with."""
    n = min(len(one), len(other))
    unlike = np.flatnonzero(one[:n] != other[:n])
    return one[: unlike[0]] if len(unlike) else one[:n]
