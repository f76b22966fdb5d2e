"""What `diff --json` prints: how the ranking of one finished job differs from that of another.

OLD is before and NEW after. A pair is a query and a document, told apart by what `keys` says.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from rankmill.contract.base import Contract

KeyKind = Literal["id", "text"]

# Of rank-biased overlap: the chance that a reader goes on to the next place.
RBO_P = 0.9
# Places of each query that it looks at; 0.9 ** 100 of the weight lies beyond, 0.003%.
RBO_DEPTH = 100


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Side(_Facts):
    """One of the outputs.

    Attributes:
        top_k: rows that its job kept of each query, so that what fell out of them has vanished.
        n_rows: ranked rows in its parts.
        n_pairs: distinct ones of them whose query and document are named.
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


class Keys(_Facts):
    """What pairs are joined on: ids, or a 128-bit hash of the text where one side has no id."""

    query: KeyKind
    document: KeyKind


class Presence(_Facts):
    """What both have, what only NEW has, and what only OLD has.

    Attributes:
        new_share: of what NEW has.
        vanished_share: of what OLD has.
    """

    n_common: int
    n_new: int
    n_vanished: int
    new_share: float
    vanished_share: float

    @classmethod
    def of(cls, n_old: int, n_new: int, n_common: int) -> Presence:
        return cls(
            n_common=n_common,
            n_new=n_new - n_common,
            n_vanished=n_old - n_common,
            new_share=(n_new - n_common) / max(n_new, 1),
            vanished_share=(n_old - n_common) / max(n_old, 1),
        )


class ScoreBin(_Facts):
    """Pairs with `start <= score < stop`; the last bin has its stop too."""

    start: float
    stop: float
    n_before: int
    n_after: int


class ScoreShift(_Facts):
    """The column `score` of the pairs that both have.

    Attributes:
        mean_shift: of after minus before.
        shift_quantiles: of after minus before, by name: min, p1, p5, p25, p50, p75, p95, p99, max;
            linear between neighbours.
        ks: the Kolmogorov-Smirnov distance of the two distributions, the most by which their
            cumulative shares differ. It is no test: the samples are the same pairs.
    """

    n_pairs: int
    mean_before: float
    mean_after: float
    mean_shift: float
    mean_abs_shift: float
    shift_quantiles: dict[str, float]
    ks: float
    histogram: tuple[ScoreBin, ...]


class Churn(_Facts):
    """The first k documents of the queries that both have.

    Attributes:
        overlap: mean share of the first k that both have; of lists shorter than k, the share of the
            longer one.
        churn: 1 - overlap.
        n_changed: queries whose first k are not the same documents, in whatever order.
    """

    k: int
    overlap: float
    churn: float
    n_changed: int


class RankBiasedOverlap(_Facts):
    """How alike the orders are, the first places counting most; 1 for equal ones.

    Extrapolated, RBO_EXT of Webber, Moffat and Zobel, "A similarity measure for indefinite
    rankings", TOIS 2010, equation 32, of the first `depth` places.

    Attributes:
        n_equal: queries at exactly 1.
        quantiles: over the queries that both have: min, p5, p25, p50.
    """

    p: float
    depth: int
    mean: float
    n_equal: int
    quantiles: dict[str, float]


class Place(_Facts):
    """A document at its place, from 1, and the one that it has on the other side, if any."""

    place: int
    doc_id: int | str | None
    document: str | None
    score: float
    other_place: int | None


class ChangedQuery(_Facts):
    """A query's first places before and after; texts where they were kept, shortened."""

    query_id: int | str | None
    query: str | None
    rbo: float
    n_before: int
    n_after: int
    before: tuple[Place, ...]
    after: tuple[Place, ...]


class Comparison(_Facts):
    """A measure's means before and after, and whether chance alone would make them differ so.

    Attributes:
        p_value: of a sign-flip test of the queries' differences, for this measure by itself.
    """

    measure: str
    before: float
    after: float
    p_value: float
    n_better: int
    n_worse: int
    n_equal: int


class GateCheck(_Facts):
    """
    Attributes:
        value: what was measured; None where there was nothing to measure, which fails.
    """

    expression: str
    value: float | None
    failed: bool


class GateResult(_Facts):
    passed: bool
    checks: tuple[GateCheck, ...]

    @property
    def message(self) -> str:
        """The failed ones in a line; empty where all passed."""
        return "; ".join(
            f"{each.expression}: it is {each.value:.4g}"
            if each.value is not None
            else f"{each.expression}: there is nothing to measure it on"
            for each in self.checks
            if each.failed
        )


class Drift(Contract):
    """
    Attributes:
        scores: None without common pairs.
        churn, rbo: empty and None without common queries.
        ndcg: by judgments, if there were any.
        most_changed: the common queries of lowest rank-biased overlap, the lowest first.
        gate: what the gates said, where there were any.
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
