"""Add up how the shards of a job reordered their queries, and say it in a headline."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from heapq import nlargest
from itertools import zip_longest

from rankmill.contract.drift import Comparison
from rankmill.contract.reordering import DEPTH, FirstStage, MovedQuery, Reordering

_N_MOVED = 5
# A mean correlation nearer to 0 than this, over so many queries, is that of rows in any order.
_NO_CORRELATION, _MIN_QUERIES = 0.05, 30
_SUMMED = ("n_queries", "n_new_first", "n_deep", "n_new", "correlations")


@dataclass(frozen=True)
class RankScore:
    """The mean of the logits at a rank, and their standard deviation."""

    rank: int
    mean: float
    deviation: float


@dataclass(frozen=True)
class SliceSum:
    """The rows of similar length, or the truncated ones, with the mean of their logits.

    Attributes:
        first_share: the share of them in the first DEPTH places, in queries with more rows; None
            if there are no such queries.
    """

    name: str
    n_rows: int
    truncated_share: float
    mean: float
    first_share: float | None


@dataclass
class Changes:
    """The sums over all shards whose reports have a `reordering`."""

    n_shards: int = 0
    sums: Counter[str] = field(default_factory=Counter)
    first_stage: FirstStage = "rows"
    moved: list[MovedQuery] = field(default_factory=list)
    _by_rank: list[tuple[float, ...]] = field(default_factory=list)
    _slices: dict[tuple[int, bool], tuple[float, ...]] = field(default_factory=dict)

    def add(self, found: Reordering) -> None:
        """Add one shard's queries."""
        self.n_shards += 1
        self.first_stage = found.first_stage
        for name in _SUMMED:
            self.sums[name] += getattr(found, name)
        both = (*self.moved, *found.moved)
        self.moved = nlargest(_N_MOVED, both, key=lambda query: query.movement)
        ranks = zip(found.by_rank.n_rows, found.by_rank.logits, found.by_rank.squares, strict=True)
        pairs = zip_longest(self._by_rank, ranks, fillvalue=(0, 0.0, 0.0))
        self._by_rank = [_added(*pair) for pair in pairs]
        for each in found.slices:
            key = each.max_tokens, each.truncated
            sums = each.n_rows, each.n_first, each.n_deep, each.logits
            self._slices[key] = _added(self._slices.get(key, (0, 0, 0, 0.0)), sums)

    @property
    def has_order(self) -> bool:
        """Whether the order before seems to be a ranking, and not rows in any order."""
        n = self.sums["n_queries"]
        if self.first_stage == "score" or n < _MIN_QUERIES:
            return n > 0
        return abs(self.sums["correlations"] / n) >= _NO_CORRELATION

    @property
    def by_rank(self) -> list[RankScore]:
        """The logits at each of the first ranks."""
        found = []
        for rank, (n, total, squares) in enumerate(self._by_rank, 1):
            mean = total / n
            found.append(RankScore(rank, mean, max(squares / n - mean**2, 0.0) ** 0.5))
        return found

    @property
    def slices(self) -> list[SliceSum]:
        """The rows by their length, then those that were truncated and those that were not."""
        lengths = sorted({tokens for tokens, _ in self._slices})
        names = {tokens: f"{tokens // 2 + 1:,} to {tokens:,} tokens" for tokens in lengths}
        named = {names[tokens]: [(tokens, False), (tokens, True)] for tokens in lengths}
        if any(truncated for _, truncated in self._slices):
            named["truncated"] = [(tokens, True) for tokens in lengths]
            named["whole"] = [(tokens, False) for tokens in lengths]
        return [self._slice(name, keys) for name, keys in named.items()]

    def _slice(self, name: str, keys: list[tuple[int, bool]]) -> SliceSum:
        nothing = (0, 0, 0, 0.0)
        n, n_first, n_deep, logits = map(
            sum, zip(*(self._slices.get(key, nothing) for key in keys), strict=True)
        )
        n_truncated = sum(self._slices.get(key, nothing)[0] for key in keys if key[1])
        return SliceSum(
            name=name,
            n_rows=int(n),
            truncated_share=n_truncated / max(n, 1),
            mean=logits / max(n, 1),
            first_share=n_first / n_deep if n_deep else None,
        )

    def headline(self, judged: tuple[Comparison, ...], column: str) -> list[str]:
        """Return what the scores changed: the news, then a sentence for each further fact.

        Args:
            judged: measures before and after, if there are judgments.
            column: the input's column with the first stage's scores, if it has one.
        """
        sums, said = self.sums, []
        n, n_deep = sums["n_queries"], sums["n_deep"]
        for each in judged[:1]:
            said.append(f"{each.measure} went from {each.before:.3f} to {each.after:.3f}")
        if not self.n_shards:
            return said
        if not n:
            return [*said, "Each query has one candidate, so nothing was reordered"]
        if not self.has_order:
            return [
                *said,
                f"{n:,} queries are ranked",
                "The order of the input's rows has nothing to do with the scores, so the page "
                "compares no order before with them",
            ]
        if n_deep:
            share = sums["n_new"] / (DEPTH * n_deep)
            said.append(f"{share:.0%} of the top tens are new")
            said.append(
                f"{sums['n_new']:,} of {DEPTH * n_deep:,} places went to documents from below "
                f"place {DEPTH}"
            )
        are = "has" if sums["n_new_first"] == 1 else "have"
        queries = "query" if n == 1 else "queries"
        said.append(f"{sums['n_new_first']:,} of {n:,} {queries} {are} another first document")
        by = f"the input's column {column}" if self.first_stage == "score" else "the input's rows"
        return [*said, f"The order before is that of {by}"]


def _added(one: tuple[float, ...], other: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))
