"""Pairs to benchmark on: real text cut to realistic lengths, seeded; six mixes."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

Mix = Literal["plain", "abstracts", "full", "duplicates", "long", "tiny"]
MIXES: tuple[Mix, ...] = get_args(Mix)

TABLE = Path(__file__).parents[1] / "examples" / "packages.parquet"

# Documents of the plain mix, in tokens: lognormal, about 75 on average.
_MEDIAN_TOKENS, _SIGMA, _TOKENS_A_WORD = 62, 0.62, 1.33
# Abstracts have about 265 on average; full documents reach the limit of a model with 512 tokens.
_MEDIAN_OF_ABSTRACTS, _SIGMA_OF_ABSTRACTS = 220, 0.4
_SHORTEST_FULL, _LONGEST_FULL = 480, 530
_SHORTEST, _LONGEST = 8, 700
_LONGEST_OF_LONG = 8192
_DUPLICATE_SHARE = 0.2
_DOCUMENTS_A_QUERY = 40


@dataclass(frozen=True)
class Corpus:
    """Queries, and a stream of words to cut documents from."""

    source: str
    queries: list[str]
    words: list[str]

    @property
    def sentences(self) -> list[str]:
        """Texts to train a tokenizer on."""
        chunks = range(0, len(self.words), 40)
        return [*self.queries, *(" ".join(self.words[start : start + 40]) for start in chunks)]


def read_corpus() -> Corpus:
    """Return the package descriptions in examples/, or generated text without pyarrow."""
    try:
        import pyarrow.parquet as pq
    except ImportError:
        return _generated()
    columns = pq.read_table(TABLE, columns=["query", "document"])
    queries = list(dict.fromkeys(columns["query"].to_pylist()))
    documents = list(dict.fromkeys(columns["document"].to_pylist()))
    random.Random(0).shuffle(documents)
    return Corpus("examples/packages.parquet", queries, " ".join(documents).split())


def build_pairs(corpus: Corpus, mix: Mix, n_pairs: int, *, seed: int = 1) -> list[tuple[str, str]]:
    """Return `n_pairs` of (query, document), the documents of a query together."""
    rng = np.random.default_rng(seed)
    n_words = _document_words(mix, n_pairs, rng)
    starts = rng.integers(0, len(corpus.words), n_pairs)
    queries = rng.integers(0, len(corpus.queries), n_pairs // _DOCUMENTS_A_QUERY + 1)
    pairs = []
    for row, (start, length) in enumerate(zip(starts, n_words, strict=True)):
        query = corpus.queries[queries[row // _DOCUMENTS_A_QUERY]]
        if mix == "tiny":
            query = " ".join(query.split()[:2])
        pairs.append((query, _cut(corpus.words, int(start), int(length))))
    return _repeat_some(pairs, rng) if mix == "duplicates" else pairs


def _document_words(mix: Mix, n_pairs: int, rng: np.random.Generator) -> np.ndarray:
    tokens = rng.lognormal(np.log(_MEDIAN_TOKENS), _SIGMA, n_pairs).clip(_SHORTEST, _LONGEST)
    if mix == "tiny":
        tokens = tokens.clip(_SHORTEST, 24)
    if mix == "abstracts":
        tokens = rng.lognormal(np.log(_MEDIAN_OF_ABSTRACTS), _SIGMA_OF_ABSTRACTS, n_pairs)
    if mix == "full":
        tokens = rng.uniform(_SHORTEST_FULL, _LONGEST_FULL, n_pairs)
    if mix == "long":
        longest = np.exp(rng.uniform(np.log(512), np.log(_LONGEST_OF_LONG), n_pairs))
        tokens = np.where(rng.random(n_pairs) < 0.1, longest, tokens)
    return np.maximum(4, tokens / _TOKENS_A_WORD).astype(int)


def _repeat_some(pairs: list[tuple[str, str]], rng: np.random.Generator) -> list[tuple[str, str]]:
    """Make a fifth of the pairs equal to one of the 500 before."""
    out = pairs[:1]
    for row, pair in enumerate(pairs[1:], start=1):
        earlier = int(rng.integers(max(0, row - 500), row))
        out.append(out[earlier] if rng.random() < _DUPLICATE_SHARE else pair)
    return out


def _cut(words: list[str], start: int, length: int) -> str:
    cut = words[start : start + length]
    while len(cut) < length:
        cut += words[: length - len(cut)]
    return " ".join(cut)


def _generated() -> Corpus:
    """Make words of random syllables, drawn by Zipf's law."""
    rng = random.Random(0)
    syllables = [c + v + e for c in "bdfgklmnprst" for v in "aeiou" for e in ("", "n", "r", "s")]
    lexicon = ["".join(rng.choices(syllables, k=rng.choice((1, 2, 2, 3)))) for _ in range(20_000)]
    weights = [1 / (rank + 10) for rank in range(len(lexicon))]
    words = rng.choices(lexicon, weights, k=200_000)
    queries = [" ".join(rng.choices(lexicon, weights, k=rng.randint(3, 9))) for _ in range(300)]
    return Corpus("generated", queries, words)
