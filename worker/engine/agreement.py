"""Compare the ranking of a reduced precision with that of fp32, on real pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_TOP = 10


@dataclass(frozen=True)
class Agreement:
    """The agreement of one precision with fp32 on the same pairs.

    Attributes:
        n_pairs: pairs compared.
        n_queries: queries with two or more documents; the next two figures are their means.
        kendall_tau: rank correlation within a query, -1 to 1 (tau-b: ties count for neither).
        top10_overlap: share of a query's ten best documents in fp32 that stay among the ten best.
        max_difference: the largest difference between logits.
    """

    n_pairs: int
    n_queries: int
    kendall_tau: float
    top10_overlap: float
    max_difference: float


def measure_agreement(queries: Sequence[str], reduced: np.ndarray, exact: np.ndarray) -> Agreement:
    """Compare the logits of the same pairs in two precisions.

    Args:
        queries: the query of each pair.
        reduced: float32 (pairs,), logits in the reduced precision.
        exact: float32 (pairs,), logits in fp32.
    """
    by_query: dict[str, list[int]] = {}
    for row, query in enumerate(queries):
        by_query.setdefault(query, []).append(row)
    groups = [np.array(rows) for rows in by_query.values() if len(rows) > 1]
    taus = [_kendall_tau(reduced[rows], exact[rows]) for rows in groups]
    overlaps = []
    for rows in groups:
        n_top = min(_TOP, len(rows))
        top, expected = (
            set(np.argsort(-logits[rows], kind="stable")[:n_top]) for logits in (reduced, exact)
        )
        overlaps.append(len(top & expected) / n_top)
    return Agreement(
        n_pairs=len(exact),
        n_queries=len(groups),
        kendall_tau=float(np.mean(taus)) if taus else 1.0,
        top10_overlap=float(np.mean(overlaps)) if overlaps else 1.0,
        max_difference=float(np.max(np.abs(reduced - exact))) if len(exact) else 0.0,
    )


def _kendall_tau(a: np.ndarray, b: np.ndarray) -> float:
    """Return tau-b (Kendall 1945) over all pairs of documents; 1 if either side has only ties."""
    upper = np.triu_indices(len(a), k=1)
    signs_a = np.sign(a[upper[0]] - a[upper[1]])
    signs_b = np.sign(b[upper[0]] - b[upper[1]])
    untied = np.sqrt(float(np.abs(signs_a).sum()) * float(np.abs(signs_b).sum()))
    return float((signs_a * signs_b).sum() / untied) if untied else 1.0
