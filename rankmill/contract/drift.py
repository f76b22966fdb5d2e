"""The result of `diff`: how the rankings of two finished jobs differ.

OLD is before and NEW after. `keys` says how pairs of a query and a document are matched.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from rankmill.contract.base import Contract, Part

KeyKind = Literal["id", "text"]

# Rank-biased overlap: the probability that a reader goes on to the next place.
RBO_P = 0.9
# Places of each query that count; 0.9 ** 100 of the weight, 0.003%, lies beyond.
RBO_DEPTH = 100


class Side(Part):
    """One of the two outputs.

    Attributes:
        top_k: rows that its job kept of each query; a document beyond them counts as vanished.
        n_rows: ranked rows in its parts.
        n_pairs: distinct pairs of these rows whose query and document have a key.
    """

    job_id: str
    output_uri: str
    submitted_at: datetime
    model_id: str
    model_revision: str | None
    top_k: int | None
    n_rows: int
    n_pairs: int
    n_queries: int


class Keys(Part):
    """The keys that pairs are joined on: ids, or a 128-bit hash of the text if a side has no id."""

    query: KeyKind
    document: KeyKind


class Presence(Part):
    """Counts of what both outputs have, only NEW has, and only OLD has.

    Attributes:
        new_share: n_new as a share of all in NEW.
        vanished_share: n_vanished as a share of all in OLD.
    """

    n_common: int
    n_new: int
    n_vanished: int
    new_share: float
    vanished_share: float

    @classmethod
    def of(cls, n_old: int, n_new: int, n_common: int) -> Presence:
        """Return the counts and shares, given the sizes of both outputs and their overlap."""
        return cls(
            n_common=n_common,
            n_new=n_new - n_common,
            n_vanished=n_old - n_common,
            new_share=(n_new - n_common) / max(n_new, 1),
            vanished_share=(n_old - n_common) / max(n_old, 1),
        )


class ScoreBin(Part):
    """Pairs with `start <= score < stop`; the last bin includes `stop`."""

    start: float
    stop: float
    n_before: int
    n_after: int


class ScoreShift(Part):
    """The change of the column `score` in the pairs that both outputs have.

    Attributes:
        mean_shift: mean of after minus before.
        shift_quantiles: quantiles of after minus before, linear between neighbours. Their names
            are min, p1, p5, p25, p50, p75, p95, p99 and max.
        ks: the Kolmogorov-Smirnov distance of the two distributions, the largest difference of
            their cumulative shares. It is not a test, because both samples are the same pairs.
    """

    n_pairs: int
    mean_before: float
    mean_after: float
    mean_shift: float
    mean_abs_shift: float
    shift_quantiles: dict[str, float]
    ks: float
    histogram: tuple[ScoreBin, ...]


class Churn(Part):
    """The change of the first k documents, over the queries that both outputs have.

    Attributes:
        overlap: mean share of the first k that both have; for lists shorter than k, the share of
            the longer one.
        churn: 1 - overlap.
        n_changed: queries whose first k are different documents; their order does not count.
    """

    k: int
    overlap: float
    churn: float
    n_changed: int


class RankBiasedOverlap(Part):
    """The similarity of the orders, in which the first places count most; 1 for equal orders.

    It is RBO_EXT, extrapolated, of Webber, Moffat and Zobel, "A similarity measure for indefinite
    rankings", TOIS 2010, equation 32, of the first `depth` places.

    Attributes:
        n_equal: queries with exactly 1.
        quantiles: min, p5, p25 and p50 over the queries that both outputs have.
    """

    p: float
    depth: int
    mean: float
    n_equal: int
    quantiles: dict[str, float]


class Place(Part):
    """A document, its place from 1, and its place in the other output, if any."""

    place: int
    doc_id: int | str | None
    document: str | None
    score: float
    other_place: int | None


class ChangedQuery(Part):
    """A query's first places before and after, with clipped texts if they were kept."""

    query_id: int | str | None
    query: str | None
    rbo: float
    n_before: int
    n_after: int
    before: tuple[Place, ...]
    after: tuple[Place, ...]


class Comparison(Part):
    """A measure's means before and after, and the significance of their difference.

    Attributes:
        p_value: of a paired permutation test over the queries, for this measure alone.
    """

    measure: str
    before: float
    after: float
    p_value: float
    n_better: int
    n_worse: int
    n_equal: int


class GateCheck(Part):
    """One gate expression and its outcome.

    Attributes:
        value: the measured value; None if there was nothing to measure, which fails.
    """

    expression: str
    value: float | None
    failed: bool


class GateResult(Part):
    """The outcome of all gate expressions of a comparison."""

    passed: bool
    checks: tuple[GateCheck, ...]

    @property
    def message(self) -> str:
        """The failed expressions in a line; empty if all passed."""
        return "; ".join(
            f"{check.expression}: it is {check.value:.4g}"
            if check.value is not None
            else f"{check.expression}: there is nothing to measure it on"
            for check in self.checks
            if check.failed
        )


class Drift(Contract):
    """A comparison of two finished jobs; `diff --json` prints it.

    Attributes:
        scores: None without common pairs.
        churn: empty without common queries.
        rbo: None without common queries.
        ndcg: empty without judgments.
        most_changed: the common queries with the lowest rank-biased overlap, lowest first.
        gate: the outcome of the gates, if there were any.
    """

    old: Side
    new: Side
    keys: Keys
    queries: Presence
    pairs: Presence
    scores: ScoreShift | None
    churn: tuple[Churn, ...]
    rbo: RankBiasedOverlap | None
    ndcg: tuple[Comparison, ...]
    most_changed: tuple[ChangedQuery, ...]
    gate: GateResult | None = None
