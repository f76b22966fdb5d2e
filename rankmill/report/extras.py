"""The extras that a user adds to a job's page: judgments, an earlier run, a price."""

from __future__ import annotations

from dataclasses import dataclass

from rankmill.contract.drift import Comparison, Drift


@dataclass(frozen=True)
class Judged:
    """Measures before and after, by judgments.

    Attributes:
        n_queries: judged queries; means are over these.
        top_k: rows that the job kept of each.
        too_deep: measures that are left out, because their cutoff is beyond `top_k`.
    """

    qrels_uri: str
    n_queries: int
    top_k: int | None
    too_deep: tuple[str, ...]
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True)
class Compared:
    """An earlier run next to this one.

    Attributes:
        differing: name, value before and value now of each fact that differs.
        equal: the names of the facts that are equal, with their value.
    """

    drift: Drift
    differing: list[tuple[str, str, str]]
    equal: list[tuple[str, str]]


@dataclass(frozen=True)
class Extras:
    """The additions to one page; a price is of a device for an hour."""

    judged: Judged | None = None
    compared: Compared | None = None
    price_per_hour: float | None = None
