"""The time that spans cover."""

from __future__ import annotations

import pytest

from rankmill.spans import covered_s


@pytest.mark.parametrize(
    ("spans", "seconds"),
    [
        ([], 0.0),
        ([(1.0, 3.0)], 2.0),
        ([(10.0, 11.0), (1.0, 3.0)], 3.0),
        ([(1.0, 5.0), (2.0, 3.0), (4.0, 6.0)], 5.0),
    ],
    ids=["none", "one", "idle time between two", "overlapping workers"],
)
def test_time_is_counted_once_and_idle_time_is_not(
    spans: list[tuple[float, float]], seconds: float
) -> None:
    assert covered_s(spans) == seconds
