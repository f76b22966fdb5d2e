"""Columns of unusual types, four rows each."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

import pyarrow as pa

ODD_COLUMNS = {
    "dictionary": pa.array(["x", None, "x", "y"]).dictionary_encode(),
    "large_string": pa.array(["x", None, "", "y"], pa.large_string()),
    "string_view": pa.array(["x", None, "", "a string too long to be inlined"], pa.string_view()),
    "binary": pa.array([b"\xff", None, b"", b"y"]),
    "fixed": pa.array([b"ab", None, b"cd", b"ef"], pa.binary(2)),
    "berlin": pa.array([1, None, -1, 2**62], pa.timestamp("ns", "Europe/Berlin")),
    "seconds": pa.array([1, None, -1, 2], pa.timestamp("us")),
    "utc": pa.array(
        [datetime(2026, 1, 1, tzinfo=UTC), None, None, None], pa.timestamp("ms", "UTC")
    ),
    "date": pa.array([date(2026, 1, 1), None, date(1, 1, 1), date(9999, 12, 31)]),
    "time": pa.array([time(1, 2, 3), None, time(0), time(23)], pa.time64("ns")),
    "duration": pa.array([timedelta(1), None, timedelta(0), timedelta(-1)], pa.duration("ns")),
    "decimal": pa.array([Decimal("1.50"), None, Decimal("-9.99"), Decimal(0)], pa.decimal128(9, 2)),
    "wide": pa.array([Decimal(10**60), None, Decimal(-1), Decimal(0)], pa.decimal256(70, 2)),
    "uuid": pa.array([UUID(int=2**100), None, UUID(int=0), UUID(int=7)], pa.uuid()),
    "json": pa.array(['{"a": 1}', None, "2", "[]"], pa.json_()),
    "half": pa.array([1.5, None, -0.0, 65504.0], pa.float16()),
    "unsigned": pa.array([2**64 - 1, None, 0, 1], pa.uint64()),
    "flag": pa.array([True, None, False, True]),
    "nothing": pa.nulls(4),
    "list": pa.array([["x", None], None, [], ["y"]], pa.list_(pa.string())),
    "struct": pa.array(
        [{"a": 1, "A": [1]}, None, {"a": None, "A": None}, {"a": 2, "A": []}],
        pa.struct([("a", pa.timestamp("ns", "UTC")), ("A", pa.large_list(pa.int8()))]),
    ),
    "map": pa.array([[("k", 1)], None, [], [("k", None)]], pa.map_(pa.string(), pa.float32())),
    "views": pa.array(
        [{"a": ["x", None], "b": [("k", b"v")]}, None, {"a": [], "b": []}, {"a": ["y"], "b": None}],
        pa.struct(
            [
                ("a", pa.large_list(pa.string_view())),
                ("b", pa.map_(pa.string_view(), pa.binary_view())),
            ]
        ),
    ),
    "list of views": pa.array([["x"], None, [], ["y", None]], pa.list_(pa.string_view())),
    "list view": pa.array([["x"], None, [], ["y", None]], pa.list_view(pa.string_view())),
    "twos": pa.array([["x", "y"], None, ["", None], ["a", "b"]], pa.list_(pa.string_view(), 2)),
}

_LARGE = pa.large_string()

# The types in which a job carries the other ones: few of Arrow's kernels take views or extensions.
CARRIED_AS = {
    "string_view": _LARGE,
    "views": pa.struct([("a", pa.large_list(_LARGE)), ("b", pa.map_(_LARGE, pa.large_binary()))]),
    "list of views": pa.list_(_LARGE),
    "twos": pa.list_(_LARGE, 2),
    "uuid": pa.binary(16),
    "json": pa.string(),
}


def is_carried(found: pa.ChunkedArray, stored: pa.ChunkedArray, name: str, rows: list[int]) -> bool:
    """Return whether `found` has an odd column's values in these rows, in the type of a job."""
    if name in CARRIED_AS:
        values = getattr(ODD_COLUMNS[name], "storage", ODD_COLUMNS[name]).to_pylist()
        return found.type == CARRIED_AS[name] and found.to_pylist() == [values[n] for n in rows]
    return bool(found.equals(stored.take(rows)))
