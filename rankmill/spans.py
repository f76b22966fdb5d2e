"""Spans of time that may overlap."""

from __future__ import annotations

from collections.abc import Iterable


def covered_s(spans: Iterable[tuple[float, float]]) -> float:
    """Return the seconds that at least one span covers.

    Args:
        spans: the begin and the end of each, in seconds.
    """
    total_s, last = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total_s += max(0.0, end - max(begin, last))
        last = max(last, end)
    return total_s
